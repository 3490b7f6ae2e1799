"""Targets: which are possible, and what is said where one is not."""

from __future__ import annotations

import pytest

from pointrend_deploy.engine import flavour, targets
from pointrend_deploy.engine.flavour import Flavour, check_version
from pointrend_deploy.engine.targets import Gpu, first_gpu
from pointrend_deploy.errors import DeployError, UsageError

RTX = Flavour("tensorrt_rtx", "1.7.1.116")
FULL = Flavour("tensorrt", "10.3.0")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What is installed and which GPU there is."""
    state: dict[str, object] = {"installed": (FULL, RTX), "gpu": Gpu("Orin", 87)}
    for module in (targets, flavour):
        monkeypatch.setattr(module, "installed", lambda: state["installed"])
    monkeypatch.setattr(targets, "first_gpu", lambda: state["gpu"])
    return state


def test_gpus_that_are_not_here(here: dict[str, object]) -> None:
    found = targets.parse_targets("rtx:86,120,86")
    assert [(t.flavour, t.capability, t.gpu) for t in found] == [(RTX, 86, None), (RTX, 120, None)]
    assert found[1].folder("int8", "native") == "rtx-sm120-int8-native"


def test_this_machine(here: dict[str, object]) -> None:
    (found,) = targets.parse_targets("this")
    assert (found.flavour, found.capability, found.gpu) == (FULL, 87, Gpu("Orin", 87))
    assert found.folder("fp16", "plugin") == "trt-sm87-fp16-plugin"
    here["installed"], here["gpu"] = (RTX,), Gpu("RTX 3090", 86)
    assert targets.parse_targets("this")[0].flavour == RTX


@pytest.mark.parametrize("gpu", [Gpu("H100", 90), Gpu("H200", 90), Gpu("Orin", 87)])
def test_a_gpu_that_rtx_does_not_run(here: dict[str, object], gpu: Gpu) -> None:
    here["installed"], here["gpu"] = (RTX,), gpu
    runs = r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"
    capability = rf"{gpu.name} of compute capability {gpu.capability / 10:.1f}; it runs them on"
    with pytest.raises(DeployError, match=f"{capability} {runs}") as caught:
        targets.parse_targets("this")
    assert "tensorrt`" in caught.value.hint and "--target rtx:86" in caught.value.hint
    assert targets.parse_targets("rtx:86")[0].capability == 86
    here["installed"] = (FULL, RTX)
    assert targets.parse_targets("this")[0] == targets.Target(FULL, gpu.capability, gpu)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a target"),
        ("86", "not a target"),
        ("rtx:", "not a target"),
        ("rtx:86,", "not a target"),
        ("rtx:8.6", "not a target"),
        ("this,rtx:86", "not a target"),
        ("rtx:87", "does not build for compute capability 87"),
        ("rtx:86,110", "does not build for compute capability 110"),
    ],
)
def test_what_is_no_target(here: dict[str, object], text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        targets.parse_targets(text)


def test_what_is_missing_here(here: dict[str, object]) -> None:
    here["gpu"] = None
    with pytest.raises(DeployError, match="no NVIDIA GPU") as caught:
        targets.parse_targets("this")
    assert "--target rtx:86" in caught.value.hint
    here["installed"] = ()
    with pytest.raises(DeployError, match="neither TensorRT nor TensorRT-RTX"):
        targets.parse_targets("this")
    with pytest.raises(DeployError, match="TensorRT-RTX is not installed"):
        targets.parse_targets("rtx:86")
    here["installed"] = (RTX,)
    with pytest.raises(DeployError, match="TensorRT is not installed"):
        flavour.flavour_of("tensorrt")


def test_too_old(here: dict[str, object]) -> None:
    here["installed"] = (Flavour("tensorrt", "8.6.2"),)
    with pytest.raises(DeployError, match=r"TensorRT 8\.6\.2 is too old: 10\.3"):
        targets.parse_targets("this")
    check_version(Flavour("tensorrt", "10.3.0"))
    check_version(Flavour("tensorrt", "11.4.0.106"))
    check_version(Flavour("tensorrt", "?"))
    with pytest.raises(DeployError):
        check_version(Flavour("tensorrt", "10.2.9"))


def test_the_driver_is_asked_without_a_package() -> None:
    gpu = first_gpu()
    assert gpu is None or (gpu.name and gpu.capability >= 50)
