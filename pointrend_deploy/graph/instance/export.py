"""The instance model to ONNX: one graph, or a detector and a mask graph.

The traced modules compute ``InstanceModel.canvas_stages`` with fixed shapes, up to rounding and to
the order of detections whose scores are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import onnx
import torch
from torch import Tensor, nn

from pointrend_deploy.bundle.forms import Layout
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import Expected, check_contract
from pointrend_deploy.graph.instance.detector import BoxDetections, Detector, Proposals, rows_of
from pointrend_deploy.graph.instance.masks import InstanceMasks, StandardMasks, rois_together
from pointrend_deploy.graph.instance.points import InstancePointHead, pays
from pointrend_deploy.graph.instance.rows import RowPointHead
from pointrend_deploy.graph.instance.specs import (
    DETECTOR,
    MASKS,
    MODEL,
    ROIS,
    InstanceGraphOptions,
    MaskOutput,
    instance_expected,
    mask_levels,
    pyramid_hw,
)
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.graph.slices import keep_outputs
from pointrend_deploy.graph.trace import finish, module_names, trace
from pointrend_deploy.model.instance.mask_head import StandardMaskHead
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.network_input import Normalise
from pointrend_deploy.recipe.instance import InstanceRecipe, StandardMaskHeadSpec
from pointrend_deploy.version import __version__

USUAL_ROIS = 10
"""Number of RoIs the mask graph's work is planned for where their number is open."""
MaskPart = StandardMasks | InstanceMasks


class DetectorGraph(nn.Module):
    """Computes the detections of a batch of pictures, and the features the mask part reads.

    Args:
        model: the reference.
        options: of the export.
    """

    def __init__(self, model: InstanceModel, options: InstanceGraphOptions) -> None:
        super().__init__()
        spec = model.recipe.input
        self.normalise = Normalise(spec) if options.preprocess == "in-graph" else None
        self.detector = Detector(model, options.padded_hw, options.detections)
        self.names = stage_names(model, options, DETECTOR)

    def forward(self, image: Tensor, extent: Tensor) -> dict[str, Tensor]:
        """Compute the stages of the detector, by name.

        Args:
            image: (N, 3, Hp, Wp) normalised float or (N, Hp, Wp, 3) uint8.
            extent: (N, 2) int64, height and width of each picture.
        """
        stages = self.detected(image, extent)
        return {name: stages[name] for name in self.names}

    def detected(self, image: Tensor, extent: Tensor) -> dict[str, Tensor]:
        """Compute the stages of :class:`~pointrend_deploy.graph.instance.detector.Detector`."""
        if self.normalise is not None:
            image = self.normalise(image, extent)
        stages: dict[str, Tensor] = self.detector(image, extent)
        return stages


class MasksGraph(nn.Module):
    """Computes the masks of any number of detections of one picture.

    Args:
        model: the reference.
        options: of the export.
    """

    def __init__(self, model: InstanceModel, options: InstanceGraphOptions) -> None:
        super().__init__()
        self.masks = mask_part(model, options, min(options.detections, USUAL_ROIS), together=True)
        self.kind = options.masks
        self.names = stage_names(model, options, MASKS)

    def forward(self, boxes: Tensor, classes: Tensor, *features: Tensor) -> dict[str, Tensor]:
        """Compute ``masks`` (R, S, S) and the mask part's stages.

        Args:
            boxes: (R, 4) in pixels of the network input.
            classes: (R,) int64.
            features: (1, C, h, w), the levels of ``mask_levels`` in order.
        """
        stages: dict[str, Tensor] = self.masks(boxes, classes, *features)
        masks = mask_values(stages["mask_logits"], self.kind)
        stages["masks"] = mask_type(masks, self.kind)
        return {name: stages[name] for name in self.names}


class InstanceGraph(DetectorGraph):
    """Computes the detections of a batch of pictures and their masks.

    Args:
        model: the reference.
        options: of the export.
    """

    def __init__(self, model: InstanceModel, options: InstanceGraphOptions) -> None:
        super().__init__(model, options)
        self.options = options
        self.masks = mask_part(model, options, options.detections, together=False)
        self.names = stage_names(model, options, MODEL)

    def forward(self, image: Tensor, extent: Tensor) -> dict[str, Tensor]:
        """Compute the stages by name, from the inputs of :class:`DetectorGraph`.

        The stages of the masks are (N, D, ...).
        """
        stages = self.detected(image, extent)
        stages.update(self._of_all_pictures(stages))
        used = rows_of(stages["num_detections"], self.options.detections)
        masks = mask_values(stages["mask_logits"], self.options.masks)
        masks = torch.where(used[:, :, None, None], masks, 0.0)
        stages["masks"] = mask_type(masks, self.options.masks)
        return {name: stages[name] for name in self.names}

    def _of_all_pictures(self, stages: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the mask part's stages, (N, D, ...), from those of the detector."""
        boxes, classes = stages["boxes"], stages["classes"]
        if isinstance(self.masks, InstanceMasks) and self.masks.rows:
            features = [stages[name] for name in self.masks.features]
            found = self.masks(boxes.flatten(0, 1), classes.flatten(), *features)
            return {name: torch.unflatten(each, 0, classes.shape) for name, each in found.items()}
        pictures = []
        for n in range(self.options.batch):
            features = [stages[name][n : n + 1] for name in self.masks.features]
            pictures.append(self.masks(boxes[n], classes[n], *features))
        return {name: torch.stack([each[name] for each in pictures]) for name in pictures[0]}


def stage_names(model: InstanceModel, options: InstanceGraphOptions, graph: str) -> tuple[str, ...]:
    """Name every output and stage of a graph, in the order they are exported."""
    layout: Layout = "single" if graph == MODEL else "split"
    whole = msgspec.structs.replace(options, layout=layout, stages=True)
    return tuple(instance_expected(model.recipe, whole)[graph].outputs)


def mask_values(mask_logits: Tensor, kind: MaskOutput) -> Tensor:
    """Bring logits into the output's form, still as float: round(255 p) for ``prob-u8``."""
    if kind == "logits":
        return mask_logits
    probabilities = mask_logits.sigmoid()
    return probabilities if kind == "prob" else (probabilities * 255.0).round()


def mask_type(masks: Tensor, kind: MaskOutput) -> Tensor:
    """Bring masks into the output's type: uint8 for ``prob-u8``."""
    return masks.to(torch.uint8) if kind == "prob-u8" else masks


def mask_part(
    model: InstanceModel, options: InstanceGraphOptions, rois: int, *, together: bool
) -> MaskPart:
    """Make the traceable mask part of a model.

    Args:
        model: the reference.
        options: of the export.
        rois: number of RoIs of one picture the work is planned for.
        together: whether all RoIs are computed at once, so that their number may be open.

    Raises:
        DeployError: the recipe and the model's mask head do not fit.
    """
    recipe, head = model.recipe, model.roi_heads.mask_head
    spec, points = recipe.mask_head, recipe.point_head
    if isinstance(spec, StandardMaskHeadSpec) and isinstance(head, StandardMaskHead):
        return StandardMasks(head, spec)
    if isinstance(spec, StandardMaskHeadSpec) or isinstance(head, StandardMaskHead) or not points:
        raise DeployError(f"recipe {recipe.name} and its mask head are of different kinds")
    sizes = pyramid_hw(recipe, options.padded_hw)
    feature_hw = [sizes[name] for name in mask_levels(recipe)]
    plugin = options.ops == "plugin"
    return InstanceMasks(
        head,
        spec,
        points,
        rois,
        feature_hw,
        recipe.fpn.out_channels,
        rois_at_once=rois if together or plugin else rois_together(rois, options.batch),
        # Without plugins, and with few RoIs at once: it holds four rows a point of those.
        gathered=not plugin and not together and pays(rois, feature_hw),
        rows=plugin and len(points.in_features) == 1,
    )


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
    RowPointHead: "roi_heads.mask_head.point_head",
}
"""Modules that stand in for a module of the reference, and its path there."""


def export_instance_graphs(
    model: InstanceModel, options: InstanceGraphOptions
) -> dict[str, onnx.ModelProto]:
    """Export the deployable graphs of a model: ``model``, or ``detector`` and ``masks``.

    Nothing is computed at the graph's size: tracing runs on shapes alone. The same model and
    options give the same bytes.

    Args:
        model: the reference, in eval mode, float32.
        options: network grid, batch, detections, layout and more.

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


def without_stages(
    graphs: Mapping[str, onnx.ModelProto], recipe: InstanceRecipe, options: InstanceGraphOptions
) -> dict[str, onnx.ModelProto]:
    """Turn the stages among the outputs of exported graphs into inner values of the same names.

    Args:
        graphs: by name, exported with ``stages``; not changed.
        recipe: of the model.
        options: the other options they were exported with.

    Raises:
        DeployError: a graph breaks the contract.
    """
    made = {}
    for name, promised in instance_expected(recipe, options).items():
        made[name] = tidy(keep_outputs(graphs[name], list(promised.outputs)), __version__)
        check_contract(made[name], promised)
    return made


def _example(
    dtype: str, shape: tuple[int | str, ...], options: InstanceGraphOptions
) -> torch.Tensor:
    """Make zeros of a promised shape, without memory behind them; an open size is 2 or more."""
    sizes = [max(2, options.detections) if size == ROIS else int(size) for size in shape]
    return torch.zeros(1, dtype=getattr(torch, dtype)).expand(sizes)


def _open_sizes(promised: Expected, options: InstanceGraphOptions) -> list[object]:
    """Describe the open sizes of the mask graph's inputs in torch.export's terms."""
    rois = torch.export.Dim(ROIS, min=1, max=max(2, options.detections))
    inputs = [
        {axis: rois for axis, size in enumerate(shape) if size == ROIS}
        for _, shape in promised.inputs.values()
    ]
    features = inputs[2:]
    return [*inputs[:2], tuple(features)]


def _names(wrapper: nn.Module, model: InstanceModel) -> dict[str, str]:
    """Map paths in the wrapper to paths in the reference, the graph's own forms included."""
    names = module_names(wrapper, model)
    for path, module in wrapper.named_modules(remove_duplicate=False):
        if type(module) in _OWN_FORMS:
            names[path] = _OWN_FORMS[type(module)]
    return names
