"""How long an export will take on this machine, estimated before its long steps.

An export spends its time in two ways, and each is scaled by a short probe of this machine:

- tracing is Python: its time grows with the modules of the model and with the nodes of the graph;
- the runs in PyTorch and ONNX Runtime, and their comparison, are arithmetic: their time grows
  with the FLOPs of backbone and pyramid, which are counted on shapes alone.

The factors are fitted to measured exports; `benchmarks/export_duration.py` prints the estimate
beside the time that the export took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import AnyRecipe
from pointrend_deploy.verbs.export.options import ExportOptions

if TYPE_CHECKING:
    from pointrend_deploy.model.reference import ReferenceModel

_FIRST: Final = {"semantic": 200.0, "instance": 250.0}
"""Tracing of any model, in times of :func:`_python_probe`: most of it is torch's own start."""
_MODULE: Final = 0.35
"""Tracing of one more module of the model."""
_GROUP: Final = 27.0
"""Tracing of one more group of RoIs of a graph without plugins."""
_RUNS: Final = {"semantic": 5.0, "instance": 14.0}
"""All runs and their comparison, in times of backbone and pyramid at the probe's FLOPs a second."""
_REFINED_MASKS: Final = 10.0
"""The same of PointRend's masks beside."""
_PROBE_CHANNELS: Final = 256
_PROBE_SIDE: Final = 64


def expected_seconds(
    model: ReferenceModel, recipe: AnyRecipe, options: ExportOptions
) -> tuple[float, float]:
    """Estimate the seconds of tracing a model, and of the whole export after its weights are read.

    Takes a few tenths of a second. Within a factor of two where the machine does nothing else.

    Args:
        model: the reference, on the CPU.
        recipe: of the model.
        options: of the export.
    """
    modules = sum(1 for _ in model.modules())
    groups = options.batch * _groups(recipe, options)
    tracing = (_FIRST[recipe.task] + _MODULE * modules + _GROUP * groups) * _python_probe()
    flops = backbone_flops(model.backbone, (options.batch, 3, *options.padded_hw(recipe)))
    runs = _RUNS[recipe.task]
    if isinstance(recipe, InstanceRecipe) and recipe.point_head is not None:
        runs += _REFINED_MASKS
    return tracing, tracing + runs * flops / _flops_a_second()


def in_words(seconds: float) -> str:
    """Round an estimate as far as it can be trusted: ``20 s``, ``4 min``."""
    if seconds < 95:
        return f"{max(10, 10 * math.ceil(seconds / 10))} s"
    return f"{math.ceil(seconds / 60)} min"


def backbone_flops(backbone: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the FLOPs of a backbone for pictures of a shape, a multiply-add as two.

    Nothing is computed: parameters and picture are tensors without memory.
    """
    from torch.utils.flop_counter import FlopCounterMode

    state = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(backbone, shapes, (torch.empty(shape, device="meta"),))
    return int(counter.get_total_flops())


def _groups(recipe: AnyRecipe, options: ExportOptions) -> int:
    """How many groups of RoIs a graph computes one after the other; see graph/instance/masks.py."""
    if not isinstance(recipe, InstanceRecipe) or recipe.point_head is None:
        return 0
    if options.ops != "native" or options.layout == "split":
        return 0
    from pointrend_deploy.graph.instance.masks import rois_together

    detections = options.detections or recipe.box_head.detections
    return -(-detections // rois_together(detections, 1))


def _python_probe() -> float:
    """Ten times the seconds of a fixed piece of Python, the shortest of many."""
    return min(_python_times())


def _python_times() -> Iterator[float]:
    for _ in range(20):
        start, table = time.perf_counter(), {}
        for number in range(30_000):
            table[number % 1000] = str(number)
        yield 10 * (time.perf_counter() - start)


def _flops_a_second() -> float:
    """FLOPs a second of a 3x3 convolution with torch's threads, the fastest of three."""
    channels, side = _PROBE_CHANNELS, _PROBE_SIDE
    image = torch.zeros(1, channels, side, side)
    weight = torch.zeros(channels, channels, 3, 3)
    best = math.inf
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            nn.functional.conv2d(image, weight, padding=1)
            best = min(best, time.perf_counter() - start)
    return 2.0 * channels * channels * 9 * side * side / best
