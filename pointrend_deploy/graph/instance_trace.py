"""Instance models to ONNX: one graph, or a detector and its masks."""

from __future__ import annotations

from typing import Final

import onnx
import torch
from torch import nn

from pointrend_deploy.graph.contract import Expected
from pointrend_deploy.graph.detector import BoxDetections
from pointrend_deploy.graph.instance_masks import InstanceMasks
from pointrend_deploy.graph.instance_options import InstanceGraphOptions
from pointrend_deploy.graph.instance_points import InstancePointHead
from pointrend_deploy.graph.instance_specs import (
    DETECTOR,
    MASKS,
    MODEL,
    ROIS,
    instance_expected,
)
from pointrend_deploy.graph.instance_traceable import DetectorGraph, InstanceGraph, MasksGraph
from pointrend_deploy.graph.proposals import Proposals
from pointrend_deploy.graph.standard_masks import StandardMasks
from pointrend_deploy.graph.trace import finish, module_names, trace
from pointrend_deploy.model.instance import InstanceModel

_WRAPPERS: Final[dict[str, type[DetectorGraph | MasksGraph]]] = {
    MODEL: InstanceGraph,
    DETECTOR: DetectorGraph,
    MASKS: MasksGraph,
}
_OWN_FORMS: Final[dict[type[nn.Module], str]] = {
    Proposals: "proposal_generator",
    BoxDetections: "roi_heads",
    StandardMasks: "roi_heads.mask_head",
    InstanceMasks: "roi_heads.mask_head",
    InstancePointHead: "roi_heads.mask_head.point_head",
}
"""Modules that stand for one of the reference's: its path."""


def export_instance_graphs(
    model: InstanceModel, options: InstanceGraphOptions
) -> dict[str, onnx.ModelProto]:
    """The deployable graphs of a model: ``model``, or ``detector`` and ``masks``.

    Nothing is computed at the graph's size: tracing runs on shapes alone. The same model and
    options give the same bytes.

    Args:
        model: the reference, in eval mode, float32.
        options: grid, batch, detections, layout and the like.

    Raises:
        DeployError: the options do not fit the recipe, or a graph breaks the contract.
    """
    options.check(model.recipe)
    graphs = {}
    for name, promised in instance_expected(model.recipe, options).items():
        wrapper = _WRAPPERS[name](model, options)
        wrapper.eval()
        proto = trace(
            wrapper,
            tuple(_example(dtype, shape, options) for dtype, shape in promised.inputs.values()),
            list(promised.inputs),
            list(wrapper.names),
            options.opset,
            _open_sizes(promised, options) if name == MASKS else None,
        )
        graphs[name] = finish(proto, _names(wrapper, model), promised)
    return graphs


def _example(
    dtype: str, shape: tuple[int | str, ...], options: InstanceGraphOptions
) -> torch.Tensor:
    """Zeros of a promised shape, without memory behind them; an open size is 2 or more."""
    sizes = [max(2, options.detections) if size == ROIS else int(size) for size in shape]
    return torch.zeros(1, dtype=getattr(torch, dtype)).expand(sizes)


def _open_sizes(promised: Expected, options: InstanceGraphOptions) -> list[object]:
    """The open sizes of the mask graph's inputs, in torch.export's terms."""
    rois = torch.export.Dim(ROIS, min=1, max=max(2, options.detections))
    inputs = [
        {axis: rois for axis, size in enumerate(shape) if size == ROIS}
        for _, shape in promised.inputs.values()
    ]
    features = inputs[2:]
    return [*inputs[:2], tuple(features)]


def _names(wrapper: nn.Module, model: InstanceModel) -> dict[str, str]:
    """Paths in the wrapper -> paths in the reference, the graph's own forms included."""
    names = module_names(wrapper, model)
    for path, module in wrapper.named_modules(remove_duplicate=False):
        if type(module) in _OWN_FORMS:
            names[path] = _OWN_FORMS[type(module)]
    return names
