"""Part engine: the demonstration bundle as an engine on this GPU, its labels against PyTorch's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointrend_deploy.engine.flavour import Flavour, installed
from pointrend_deploy.engine.targets import check_gpu, first_gpu
from pointrend_deploy.errors import DeployError
from scripts.gpu_check.parts import ROOT, WORK, give, leave_out
from scripts.unpack_demo import unpack

PLUGINS = WORK / "plugins" / "libpointrend_plugins.so"
LABELS = 0.9998
"""Least share of equal labels, as of the parity gates."""


class StepError(Exception):
    """A command of the product that failed: which, and what it said."""


def agreement(found: Path, expected: Path) -> float:
    """Return the share of equal labels over all pictures of two folders of label maps.

    Raises:
        StepError: the folders have different label maps, or none.
    """
    names = sorted(path.name for path in expected.glob("*.png"))
    if not names or names != sorted(path.name for path in found.glob("*.png")):
        raise StepError(f"{found} and {expected} do not have the same label maps")
    equal = total = 0
    for name in names:
        ours, theirs = (np.asarray(Image.open(folder / name)) for folder in (found, expected))
        if ours.shape != theirs.shape:
            raise StepError(f"{name}: {ours.shape} against {theirs.shape}")
        equal += int((ours == theirs).sum())
        total += theirs.size
    return equal / total


def product(*words: str | Path) -> str:
    """Run pointrend-deploy and return what it wrote to stdout.

    Raises:
        StepError: it did not end with 0.
    """
    environment = dict(os.environ)
    if PLUGINS.is_file():
        environment["POINTREND_PLUGINS"] = str(PLUGINS)
    done = subprocess.run(
        [sys.executable, "-m", "pointrend_deploy", *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"== {' '.join(map(str, words))}\n{done.stdout}{done.stderr}", flush=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error:" in line]
        last = said or done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise StepError(f"{words[0]}: {last[-1].strip()}")
    return done.stdout


def checked(ops: str, bundle: Path, capability: int, builder: Flavour) -> dict[str, Any]:
    """Build the engine with plugins or natively, run it, and compare labels.

    Raises:
        StepError: the bundle cannot be built, run or compared.
    """
    product("build", bundle, "--ops", ops, "--target", "this")
    engine = f"{builder.short}-sm{capability}-fp32-{ops}"
    out = WORK / f"engine-{ops}"
    options = ("--runner", "tensorrt", "--engine", engine)
    product("run", bundle, ROOT / "demo" / "scenes", "--out", out, *options)
    share = agreement(out / "labels", WORK / "reference" / "labels")
    return {"engine": engine, "label_agreement": share, "passed": share >= LABELS}


def main() -> int:
    """Export, build, run, compare; with plugins where the library was built."""
    gpu, builders = first_gpu(), installed()
    if gpu is None:
        return leave_out("no GPU")
    if not builders:
        return leave_out("neither TensorRT nor TensorRT-RTX is installed")
    builder, bundle = builders[0], WORK / "bundle"
    title = f"{builder.title} {builder.version}"
    result: dict[str, Any] = {"builder": title}
    try:
        check_gpu(builder, gpu)
    except DeployError as error:
        return leave_out(f"no engine was built or run: {error.message}", **result)
    if find_spec("cuda") is None:
        return leave_out("cuda-python is not installed")
    try:
        unpack()
        model = ("export/demo_semantic.toml", "--weights", "demo/demo_semantic.safetensors")
        product("export", *model, "--out", bundle, "--size", "256x256", "--force")
        scenes = ROOT / "demo" / "scenes"
        product("run", bundle, scenes, "--out", WORK / "reference", "--runner", "torch")
        for ops in ("plugin", "native"):
            if ops == "plugin" and not PLUGINS.is_file():
                result[ops] = "left out: the plugin library was not built"
                continue
            result[ops] = checked(ops, bundle, gpu.capability, builder)
    except StepError as error:
        give({**result, "reason": str(error)})
        return 1
    lines = [f"{ops}: {result[ops]}" for ops in ("plugin", "native")]
    give({**result, "summary": [title, *lines]})
    ran = [ops for ops in ("plugin", "native") if isinstance(result[ops], dict)]
    return 0 if all(result[ops]["passed"] for ops in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
