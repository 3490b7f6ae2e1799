"""The GPU check as far as it goes without a GPU: its program, its comparisons, its arithmetic.

The cases run here on the CPU emulator of CUDA threads, at small sizes, through the same launchers
and comparisons that a GPU's run goes through.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend_deploy.engine.flavour import Flavour
from pointrend_deploy.engine.targets import Gpu, first_gpu
from scripts.gpu_check import __main__ as program
from scripts.gpu_check import engine as engine_part
from scripts.gpu_check import inputs, references
from scripts.gpu_check.cases import CASES, SMALL_CASES
from scripts.gpu_check.engine import StepError
from scripts.gpu_check.engine import agreement as label_agreement
from scripts.gpu_check.launchers import Launchers
from scripts.gpu_check.parts import LEFT_OUT, PARTS, RESULT, Outcome, Part, run_part
from scripts.gpu_check.sanitizer import Watched, clean, noticed
from scripts.gpu_check.small_run import run
from scripts.gpu_check.tests import counts
from tests.plugins.compilers import SCRIPT, compile_for_emulator, needed
from tests.repository import ROOT

CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(first_gpu() is not None, reason="this machine has a GPU")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emulated") / "libemulated.so"
    return compile_for_emulator(path, "emulated_library.cpp", "-O2", "-shared", "-fPIC")


def gpu_check(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "gpu_check.sh", *words],
        env={**os.environ, "OUT": str(out), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# The program


@without_gpu
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = gpu_check(tmp_path)
    assert done.returncode == 4
    assert "error: no GPU" in done.stderr
    assert "hint: " in done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found["state"] == "no GPU"
    assert found["parts"] == {}
    assert found["machine"]["gpu"] is None
    assert found["machine"]["torch"] == torch.__version__
    wanted = {"driver", "nvcc", "torch_cuda", "tensorrt", "tensorrt_rtx", "commit", "capability"}
    assert wanted <= set(found["machine"])


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--parts", "build,nothing")
    assert done.returncode == 2
    assert "no part nothing" in done.stderr


def test_the_parts_are_there_and_the_build_is_first() -> None:
    for part in PARTS:
        module = part.command[-1]
        path = Path(f"{module.replace('.', '/')}.py") if part.command[0] == "-m" else Path(module)
        assert (ROOT / path).is_file()
    assert PARTS[0].name == "build"


@without_gpu
@pytest.mark.parametrize("program", ["gpu_kernels.py", "gpu_subdivision.py"])
def test_a_benchmark_without_a_gpu_is_left_out(program: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / program], capture_output=True, text=True, check=False
    )
    assert done.returncode == LEFT_OUT, done.stderr
    assert "no NVIDIA GPU" in json.loads(done.stdout)["reason"]


@without_gpu
def test_the_gpu_tests_are_skipped_with_a_reason(tmp_path: Path) -> None:
    report = tmp_path / "gpu.xml"
    command = (sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider")
    done = subprocess.run(
        [*command, f"--junit-xml={report}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "no NVIDIA GPU" in done.stdout
    found = counts(report)
    assert found["passed"] == 0
    assert found["failed"] == []
    assert found["skipped"] == len(CASES) + 2


def outcome_of(tmp_path: Path, code: str, limit_s: float = 30.0) -> Outcome:
    part = Part("test", ("-c", code), limit_s)
    return run_part(part, tmp_path / "test.log", tmp_path, 30.0, ADDED="yes")


GIVE = "from scripts.gpu_check.parts import give, leave_out; import os, sys;"


def test_a_part_that_passes(tmp_path: Path) -> None:
    found = outcome_of(tmp_path, f"{GIVE} give({{'value': os.environ['ADDED']}}); print('said')")
    assert found
    assert (found.state, found.result) == ("passed", {"value": "yes"})
    assert (tmp_path / "test.log").read_text() == "said\n"
    assert json.loads(json.dumps(found.as_json()))["result"] == {"value": "yes"}


def test_a_part_left_out_fails_nothing(tmp_path: Path) -> None:
    found = outcome_of(tmp_path, f"{GIVE} sys.exit(leave_out('not installed', seen=1))")
    assert found
    assert (found.state, found.reason, found.result) == ("left out", "not installed", {"seen": 1})


@pytest.mark.parametrize(
    "code, reason",
    [
        ("raise ValueError('broken')", "broken"),
        (f"{GIVE} give({{'reason': 'they differ'}}); sys.exit(1)", "they differ"),
        ("import os; os.abort()", "ended with -6"),
        ("pass", "without a result"),
        (f"{GIVE} open(os.environ['POINTREND_PART'], 'w').write('no json')", "without a result"),
    ],
)
def test_a_part_that_fails(tmp_path: Path, code: str, reason: str) -> None:
    found = outcome_of(tmp_path, code)
    assert not found
    assert found.state == "failed"
    assert reason in found.reason


def test_a_part_that_hangs_is_ended_and_keeps_its_result(tmp_path: Path) -> None:
    """With the processes it started: one of them would hold the log open, or a GPU."""
    child = "import subprocess, time;"
    code = f"{GIVE} {child} give({{'half': 1}}); subprocess.run(['sleep', '60']); time.sleep(60)"
    found = outcome_of(tmp_path, code, limit_s=6.0)
    assert not found
    assert (found.state, found.result) == ("timed out", {"half": 1})
    assert found.seconds < 30


def test_no_time_left_is_a_failure(tmp_path: Path) -> None:
    part = Part("test", ("-c", "pass"), 60.0)
    assert run_part(part, tmp_path / "log", tmp_path, 1.0).state == "timed out"


@pytest.mark.parametrize(
    "code, ends_with, state", [(0, 0, "passed"), (5, 0, "passed"), (1, 3, "failed")]
)
def test_one_failing_part_fails_the_whole_and_not_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, ends_with: int, state: str
) -> None:
    """With a GPU that is only said to be there."""
    script = f"{GIVE} give({{'reason': '', 'summary': ['a line']}}); sys.exit({code})"
    parts = [Part(name, ("-c", script), 30.0, needs_kernels=False) for name in ("one", "two")]
    parts.append(Part("three", ("-c", f"{GIVE} give({{'value': 3}})"), 30.0, needs_kernels=False))
    for name, value in {
        "facts": lambda: (Gpu("pretended", 90), {"driver": None}),
        "PARTS": parts,
        "WORK": tmp_path / "work",
        "KERNELS_LIBRARY": tmp_path / "none.so",
    }.items():
        monkeypatch.setattr(program, name, value)
    assert program.main(["--out", str(tmp_path / "out")]) == ends_with
    found = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert found["state"] == state
    assert list(found["parts"]) == ["one", "two", "three"]
    assert found["parts"]["three"]["result"] == {"value": 3}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("gpu_check.json", "one.log", "two.log", "three.log")
    }


def test_parts_without_the_library_of_kernels_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "KERNELS_LIBRARY", tmp_path / "none.so")
    monkeypatch.setattr(program, "WORK", tmp_path)
    found = program._run(tmp_path, "tests", 60.0)
    assert not found
    assert found.reason == "the library of kernels was not built"


# The comparisons


@pytest.mark.parametrize("name", SMALL_CASES)
def test_a_case_is_right_and_a_planted_error_is_noticed(emulated: Path, name: str) -> None:
    prepared = SMALL_CASES[name](Launchers(emulated), CPU)
    prepared.poison(77)
    assert prepared.wrong() != ""  # nothing was launched
    prepared.launch()
    assert prepared.wrong() == ""
    right = tuple(output.clone() for output in prepared.outputs)
    for output, kept in zip(prepared.outputs, right, strict=True):
        flat = output.view(-1)
        flat[-1] = flat[-1] + 1
        assert prepared.wrong() != "", "one value off by 1"
        assert not references.same_bits(prepared.outputs, right)
        output.copy_(kept)
    prepared.launch()
    assert references.same_bits(prepared.outputs, right)


def test_the_small_run_of_the_sanitizer_agrees(emulated: Path) -> None:
    assert run(emulated, CPU) == []


def test_the_cases_are_of_the_recipes_sizes() -> None:
    names = " ".join(CASES)
    for wanted in ("8192 of 2097152", "784 of 50176", "1024x2048", "100 RoIs", "1000 boxes"):
        assert wanted in names


def test_positions_half_a_cell_off_or_in_half_precision_are_noticed() -> None:
    features = inputs.features((1, 3, 90, 160), 1)
    points = torch.rand((1, 400, 2), generator=inputs.generator(2))
    expected = references.sampled(features, points)
    allowed = references.tolerance(expected, 160, 1, half=False)
    assert references.apart(references.sampled(features, points), expected, allowed) == ""
    for moved in (points + 0.5 / 160, points.half().float()):
        assert references.apart(references.sampled(features, moved), expected, allowed) != ""


def test_the_tolerance_of_half_results_covers_one_rounding_and_no_more() -> None:
    expected = torch.rand((1000,), generator=inputs.generator(3), dtype=torch.float64)
    allowed = references.tolerance(expected, 1, 1, half=True)
    rounded = expected.half()
    assert references.apart(rounded, expected, allowed) == ""
    twice = (rounded.view(torch.int16) + 1).view(torch.float16)
    assert references.apart(twice, expected, allowed) != ""
    assert "values differ" in references.apart(
        torch.full_like(expected, torch.nan), expected, allowed
    )


def test_selection_by_hand() -> None:
    nan, inf = float("nan"), float("inf")
    values = torch.tensor([[1.0, nan, -inf, 1.0, inf, -0.0, 0.0]])
    in_order = [4, 0, 3, 5, 6, 2, 1]
    for k in range(1, 8):
        assert references.highest(values, k).tolist() == [sorted(in_order[:k])]
    assert "differ" in references.different(torch.tensor([[4, 3]]), references.highest(values, 2))


def test_bits_tell_signed_zeros_apart_and_equal_nan() -> None:
    nan, zero = torch.tensor([torch.nan]), torch.zeros(1)
    assert references.same_bits([nan], [nan.clone()])
    assert not references.same_bits([zero], [-zero])


# The other parts


def test_the_library_of_kernels_alone(tmp_path: Path) -> None:
    """For one GPU, without TensorRT's headers; loaded where there is no GPU."""
    needed("nvcc")
    needed("cmake")
    done = subprocess.run(
        [SCRIPT, "--kernels", tmp_path],
        env={**os.environ, "CUDA_ARCHITECTURES": "90-real", "STRICT": "ON"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    path = Path(done.stdout.splitlines()[-1])
    assert path == tmp_path / "libpointrend_kernels.so"
    launchers = Launchers(path)
    assert launchers.library.pointrend_tensorrt_version() == 0
    assert launchers.library.pointrend_uncertain_workspace(1, 2048) > 0
    assert not hasattr(ctypes.CDLL(str(path)), "getCreators")
    with pytest.raises(RuntimeError, match="invalid argument"):
        launchers.sample(torch.zeros(1, 1, 2, 2), torch.zeros(1, 0, 2), torch.zeros(1, 1, 0))


def test_the_plugins_are_not_downloaded_where_that_is_off(tmp_path: Path) -> None:
    """A copy of the script, so that headers downloaded earlier are not found."""
    if Path("/usr/include/NvInferRuntime.h").exists():
        pytest.skip("TensorRT's headers are installed")
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts" / SCRIPT.name
    copy.write_bytes(SCRIPT.read_bytes())
    done = subprocess.run(
        ["bash", copy, "--headers"],
        env={k: v for k, v in os.environ.items() if k != "TENSORRT_INCLUDE_DIR"}
        | {"DOWNLOAD": "OFF"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "DOWNLOAD is OFF" in done.stderr
    assert not (tmp_path / "build").exists()


def test_the_sanitizer_s_words_are_understood() -> None:
    good = Watched(0, "all agree\n========= ERROR SUMMARY: 0 errors\n")
    assert clean(good)
    assert not noticed(good)
    bad = Watched(0, "========= Invalid __global__ write of size 4\n=== ERROR SUMMARY: 64 errors\n")
    assert noticed(bad)
    assert not clean(bad)
    race = "all agree\n========= RACECHECK SUMMARY: {} hazards displayed (0 errors, 0 warnings)\n"
    assert clean(Watched(0, race.format(0)))
    assert not clean(Watched(0, race.format(2)))
    assert not clean(Watched(0, "all agree\n"))  # no summary: it watched nothing
    assert not clean(Watched(1, "1 cases are wrong\n========= ERROR SUMMARY: 0 errors\n"))


def test_no_engine_is_asked_of_rtx_on_an_h100(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rtx = Flavour("tensorrt_rtx", "1.7.1.116")
    monkeypatch.setattr(engine_part, "first_gpu", lambda: Gpu("H100", 90))
    monkeypatch.setattr(engine_part, "installed", lambda: (rtx,))
    monkeypatch.setattr(engine_part, "product", pytest.fail)
    monkeypatch.setenv(RESULT, str(tmp_path / "engine.json"))
    assert engine_part.main() == LEFT_OUT
    reason = json.loads((tmp_path / "engine.json").read_text())["reason"]
    assert "no engine was built or run: TensorRT-RTX 1.7.1.116 runs no engine on" in reason
    assert "compute capability 9.0" in reason
    assert reason in capsys.readouterr().err


def test_the_engine_part_builds_for_this_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(engine_part, "product", lambda *words: asked.append(words))
    monkeypatch.setattr(engine_part, "agreement", lambda found, expected: 1.0)
    rtx = Flavour("tensorrt_rtx", "1.7.1.116")
    found = engine_part.checked("native", tmp_path, 86, rtx)
    assert found["passed"] and found["engine"] == "rtx-sm86-fp32-native"
    assert asked[0] == ("build", tmp_path, "--ops", "native", "--target", "this")
    assert asked[1][-2:] == ("--engine", "rtx-sm86-fp32-native")


def test_label_maps_are_compared(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        Image.fromarray(np.zeros((10, 10), np.uint8)).save(folder / "a.png")
    assert label_agreement(ours, theirs) == 1.0
    changed = np.zeros((10, 10), np.uint8)
    changed[3, 4] = 2
    Image.fromarray(changed).save(ours / "a.png")
    assert label_agreement(ours, theirs) == 0.99
    Image.fromarray(changed).save(ours / "b.png")
    with pytest.raises(StepError, match="same label maps"):
        label_agreement(ours, theirs)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> object:
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


def test_bytes_that_sampling_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = loaded("gpu_kernels", monkeypatch)
    moved: Callable[..., int] = kernels.bytes_moved  # type: ignore[attr-defined]
    centre = torch.tensor([[[0.5, 0.5]]])  # between four cells of an 8 x 8 map, two rows
    assert moved(centre, (1, 3, 8, 8), "fp32") == 3 * 2 * 32 + 8 + 3 * 4
    # In float16 a row of 8 is half a sector: cells 27, 28 and 35, 36 lie in two of them.
    assert moved(centre, (1, 3, 8, 8), "fp16") == 3 * 2 * 32 + 8 + 3 * 2
    assert moved(centre, (1, 9, 8, 8), "hwc8") == 4 * 32 + 8 + 9 * 2
    twice = centre.expand(1, 2, 2)
    assert moved(twice, (1, 3, 8, 8), "fp32") == 3 * 2 * 32 + 2 * (8 + 3 * 4)
    points = kernels.uncertain_points(32, 64, 20)  # type: ignore[attr-defined]
    assert points.shape == (1, 20, 2)
    assert ((points > 0) & (points < 1)).all()


def test_summaries_tell_what_met_its_aim(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = loaded("gpu_kernels", monkeypatch)
    times = {"cold_us": 10.0, "warm_us": 5.0}
    slow = {"cold_us": 40.0, "warm_us": 30.0}
    compared = kernels._compared(times, slow)  # type: ignore[attr-defined]
    assert (compared["ratio_cold"], compared["ratio_warm"]) == (4.0, 6.0)
    result = {
        "copy_bytes_per_second": 1e12,
        "sampler": {"p2, 100 RoIs, fp32": {**compared, "share_of_bandwidth": 0.5}},
        "selection": {"8192 of 2097152, 1 rows": compared},
    }
    result["aims"] = kernels.aims(result)  # type: ignore[attr-defined]
    text = "\n".join(kernels.summary(result))  # type: ignore[attr-defined]
    assert "share of bandwidth: 0.50 of 0.7, missed" in text
    assert "torch.topk: 4.00 of 3.0, met" in text


def test_the_stage_made_of_kernels_is_detectron2_s(
    emulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the kernels are what it calls."""
    forms = loaded("gpu_forms", monkeypatch)
    stage = loaded("gpu_subdivision", monkeypatch)
    launchers = Launchers(emulated)
    called = []
    for name in ("sample", "sample_cells", "uncertain", "upsample_two_best"):
        launch = getattr(launchers, name)

        def counted(*words: object, name: str = name, launch: Callable[..., None] = launch) -> None:
            called.append(name)
            launch(*words)

        monkeypatch.setattr(launchers, name, counted)
    problems = (
        forms.semantic(forms.Sizes(64, 128, 5, 300, 16)),  # type: ignore[attr-defined]
        forms.instance(forms.InstanceSizes(3, 24, 40, 4, 16, 32, 3)),  # type: ignore[attr-defined]
    )
    for both, given in problems:
        called.clear()
        with torch.no_grad():
            expected = both["detectron2"](*given)
            with forms.kernels(launchers):  # type: ignore[attr-defined]
                found = both["ours"](*given)
            assert called.count("uncertain") >= 2
            semantic = given is problems[0][1]
            assert called.count("sample_cells" if semantic else "sample") >= 2
            assert called.count("upsample_two_best") == (2 if semantic else 0)
            agreement = stage.agreement  # type: ignore[attr-defined]
            assert agreement(found, expected) >= stage.AGREEMENT  # type: ignore[attr-defined]
            called.clear()
            other = both["ours"](given[0].flip(-1), *given[1:])
            assert called == []  # outside, the reference's ops are back
            assert agreement(other, expected) < stage.AGREEMENT  # type: ignore[attr-defined]


def test_ratios_are_of_the_best_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = loaded("gpu_subdivision", monkeypatch)
    result = {
        "detectron2 eager": {"cold_us": 1000.0},
        "detectron2 compiled": {"cold_us": 500.0},
        "detectron2 captured": {"left_out": "it waits"},
        "ours eager": {"cold_us": 400.0},
        "ours compiled": {"cold_us": 200.0},
        "ours captured": {"cold_us": 100.0},
        "agreement": 1.0,
    }
    found = stage.ratios(result)  # type: ignore[attr-defined]
    assert found == {
        "ours_us": 100.0,
        "eager": 10.0,
        "compiled": 5.0,
        "compiled_and_captured": 5.0,
    }
    lines = stage.summary("name", {**result, **found})  # type: ignore[attr-defined]
    assert sum("met" in line for line in lines) == 2
