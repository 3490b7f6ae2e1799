"""Time the whole subdivision stage on a GPU: with our kernels, and in detectron2's form.

    POINTREND_KERNELS=libpointrend_kernels.so python benchmarks/gpu_subdivision.py [--runs 30]

Ours is the deployable graph's form with the kernels in it, its other ops compiled by torch.compile
as a builder of engines would fuse them, and captured in a CUDA graph. detectron2's form is timed
eager, compiled, and compiled and captured. FP32, TF32 off. No engine of TensorRT is timed here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import gpu_program
from gpu_forms import instance, kernels, semantic
from gpu_timing import Timer, captured
from instance_graphs import Sizes as InstanceSizes
from subdivision_graphs import Sizes

from scripts.gpu_check.launchers import Launchers
from scripts.gpu_check.parts import give

AIMS = {"eager": 10.0, "compiled": 3.0}
AGREEMENT = 0.999
"""Least share of equal labels, or of equal signs of mask logits: points at a near tie may swap."""


def agreement(found: Tensor, expected: Tensor) -> float:
    """Return the share of equal labels where one side has labels (N, H, W), else of equal signs."""
    if found.dim() != expected.dim() and not found.is_floating_point():
        expected = expected.argmax(dim=1)
        return float((found == expected).double().mean())
    return float(((found.reshape(-1) > 0) == (expected.reshape(-1) > 0)).double().mean())


def measure(
    forms: dict[str, nn.Module], given: tuple[Tensor, ...], timer: Timer, lib: Launchers
) -> dict[str, Any]:
    """Time every form, in microseconds, and measure how far they agree."""
    result: dict[str, Any] = {}
    theirs, ours = forms["detectron2"].cuda(), forms["ours"].cuda()
    on_gpu = [each.cuda() for each in given]
    expected = theirs(*on_gpu)
    compiled_theirs = torch.compile(theirs, dynamic=False)
    calls: dict[str, Callable[[], object]] = {
        "detectron2 eager": lambda: theirs(*on_gpu),
        "detectron2 compiled": lambda: compiled_theirs(*on_gpu),
    }
    for name, call in calls.items():
        result[name] = timer(call, capture=False).as_json()
    with kernels(lib):
        compiled_ours = torch.compile(ours, dynamic=False)
        result["agreement"] = agreement(ours(*on_gpu), expected)
        result["agreement compiled"] = agreement(compiled_ours(*on_gpu), expected)
        calls["ours eager"] = lambda: ours(*on_gpu)
        calls["ours compiled"] = lambda: compiled_ours(*on_gpu)
        for name in ("ours eager", "ours compiled"):
            result[name] = timer(calls[name], capture=False).as_json()
        # Last: a capture that fails may leave torch's allocator in its state.
        result["ours captured"] = _captured_times(calls["ours compiled"], timer)
    result["detectron2 captured"] = _captured_times(calls["detectron2 compiled"], timer)
    return {**result, **ratios(result)}


def _captured_times(call: Callable[[], object], timer: Timer) -> dict[str, Any]:
    try:
        graph = captured(call)
    except RuntimeError as error:
        torch.cuda.synchronize()
        return {"left_out": str(error).splitlines()[0]}
    return timer(graph.replay, capture=False).as_json()


def ratios(result: dict[str, Any]) -> dict[str, Any]:
    """Divide the times of detectron2's forms by the best of ours."""

    def best(*names: str) -> float:
        found = [result[name] for name in names if "cold_us" in result.get(name, {})]
        return min(float(each["cold_us"]) for each in found)

    ours = best("ours eager", "ours compiled", "ours captured")
    return {
        "ours_us": ours,
        "eager": best("detectron2 eager") / ours,
        "compiled": best("detectron2 compiled") / ours,
        "compiled_and_captured": best("detectron2 compiled", "detectron2 captured") / ours,
    }


def summary(name: str, result: dict[str, Any]) -> list[str]:
    """Return the lines that summarise one problem."""
    lines = [f"{name}: ours {result['ours_us']:.0f} us, agreement {result['agreement']:.6f}"]
    for aim, wanted in AIMS.items():
        state = "met" if result[aim] >= wanted else "missed"
        lines.append(f"aim {name} over {aim}: {result[aim]:.2f} of {wanted}, {state}")
    over = result["compiled_and_captured"]
    lines.append(f"{name} over detectron2's form compiled and captured: {over:.2f}")
    return lines


def measure_all(lib: Launchers, timer: Timer) -> int:
    """Time both problems and give the figures; returns 1 where the forms do not agree."""
    problems: dict[str, tuple[dict[str, nn.Module], tuple[Tensor, ...]]] = {
        "semantic 1024x2048, 19 classes, 2 x 8192 points": semantic(Sizes()),
        "instance, 100 RoIs": instance(InstanceSizes(rois=100, rois_at_once=100)),
    }
    torch.set_default_device("cuda")  # the forms make constants on it
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {"problems": {}, "summary": []}
    agrees = True
    with torch.no_grad():
        for name, (forms, given) in problems.items():
            found = measure(forms, given, timer, lib)
            result["problems"][name] = found
            result["summary"] += summary(name, found)
            agrees = agrees and min(found["agreement"], found["agreement compiled"]) >= AGREEMENT
            give(result if agrees else {**result, "reason": f"{name}: the forms do not agree"})
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(gpu_program.run(__doc__, measure_all, runs=30, together=3))
