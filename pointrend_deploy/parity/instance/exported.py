"""The exported instance graphs compared with the reference on the same input, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from pointrend_deploy.graph.instance.specs import (
    DETECTOR,
    MASKS,
    MODEL,
    InstanceGraphOptions,
    detector_stages,
    mask_stages,
)
from pointrend_deploy.graph.slices import cut
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.model.network_input import canvas_input
from pointrend_deploy.parity.exported import VerificationBatch, export_run, run_with_stages
from pointrend_deploy.parity.instance.masks import RoIs
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.parity.instance.verify import verify_instances
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.instance import InstanceRecipe

Array = npt.NDArray[Any]
Graphs = Mapping[str, onnx.ModelProto]

FEW_DETECTIONS = 8
"""With fewer detections in all, the mask part is compared also on boxes of proposals."""
GIVEN = 16
"""Largest number of proposals of a picture whose boxes are used for that."""


def verify_instance_graphs(
    graphs: Graphs,
    model: InstanceModel,
    options: InstanceGraphOptions,
    batch: VerificationBatch,
    progress: Progress,
) -> Run:
    """Run graphs in ONNX Runtime and the reference in PyTorch, and compare their stages.

    Args:
        graphs: under ``model``, or ``detector`` and ``masks``, each with its inner stages among its
            outputs; not changed.
        model: the reference, whose recipe keeps as many detections as the graph.
        options: the graphs were made with.
        batch: the pictures.
        progress: shows each step.

    Returns:
        The run for parity.json, in which everything passed.

    Raises:
        ParityError: the two differ; it names the first stage that does.
    """
    started = time.monotonic()
    inputs = batch.inputs()
    with progress.step("PyTorch reference"):
        x = canvas_input(batch.manifest, inputs)
        references = batch.filled(
            [
                TorchPicture(model, x[row : row + 1], picture.fitted_hw)
                for row, picture in enumerate(batch.pictures)
            ]
        )
    with progress.step("ONNX Runtime"):
        ran = _Ran(graphs, model.recipe, options)
        outputs = ran.detector(inputs)
        rois = ran.own(outputs)
        given = None
        if len(rois.boxes) < FEW_DETECTIONS:
            given = ran.given(outputs, references)
    with progress.step("comparing the stages"):
        unread = unread_levels(model.recipe)
        result = verify_instances(references, outputs, rois, options.masks, given, unread)
    run = export_run(result, batch, started)
    return msgspec.structs.replace(run, detections=result.detections, notes=result.notes)


def unread_levels(recipe: InstanceRecipe) -> set[str]:
    """Name the pyramid levels that no head reads; a graph lacks them."""
    points = recipe.point_head
    return (
        set(recipe.pyramid)
        - {*recipe.rpn.in_features, *recipe.box_head.in_features, *recipe.mask_head.in_features}
        - set(points.in_features if points is not None else ())
    )


class _Ran:
    """The exported graphs in ONNX Runtime, in either layout."""

    def __init__(
        self, graphs: Graphs, recipe: InstanceRecipe, options: InstanceGraphOptions
    ) -> None:
        self._graphs, self._recipe, self._options = graphs, recipe, options
        self._detector = list(detector_stages(recipe, options))
        self._masks = list(mask_stages(recipe, ("R",)))
        self._levels = [
            value.name
            for value in (graphs[MASKS].graph.input if MASKS in graphs else ())
            if value.name not in ("boxes", "classes")
        ]

    def detector(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph that takes the pictures; all its values have the batch axis first."""
        if self._options.layout == "split":
            return run_with_stages(self._graphs[DETECTOR], inputs, self._detector)
        return run_with_stages(self._graphs[MODEL], inputs, [*self._detector, *self._masks])

    def own(self, outputs: Mapping[str, Array]) -> RoIs:
        """Give the masks of the graph's own detections; a split layout computes them here."""
        most = outputs["boxes"].shape[1]
        counts = [min(max(int(count), 0), most) for count in outputs["num_detections"]]
        if self._options.layout == "split":
            boxes = [outputs["boxes"][row, :count] for row, count in enumerate(counts)]
            classes = [outputs["classes"][row, :count] for row, count in enumerate(counts)]
            return self._of_split(outputs, boxes, classes)
        return _rois(outputs, counts, [name for name in self._masks if name in outputs])

    def given(self, outputs: Mapping[str, Array], references: Sequence[TorchPicture]) -> RoIs:
        """Compute the graph's masks of boxes the reference proposes, with every class in turn."""
        most = outputs["boxes"].shape[1]
        boxes, classes = [], []
        for reference in references:
            some = reference.proposals[: min(GIVEN, most)]
            boxes.append(some)
            classes.append(np.arange(len(some), dtype=np.int64) % self._recipe.num_classes)
        if self._options.layout == "split":
            return self._of_split(outputs, boxes, classes)
        counts = [len(some) for some in boxes]
        inputs = {
            name: np.zeros_like(outputs[name]) for name in ("num_detections", "boxes", "classes")
        }
        for row, count in enumerate(counts):
            inputs["num_detections"][row] = count
            inputs["boxes"][row, :count] = boxes[row]
            inputs["classes"][row, :count] = classes[row]
        inputs |= {name: outputs[name] for name in self._recipe.pyramid if name in outputs}
        outputs_of = [output.name for output in self._graphs[MODEL].graph.output]
        wanted = [name for name in ("masks", *self._masks) if name in outputs_of]
        graph = cut(self._graphs[MODEL], wanted, inputs)
        found = run_with_stages(graph, inputs, self._masks)
        return _rois({**inputs, **found}, counts, [name for name in self._masks if name in found])

    def _of_split(
        self, outputs: Mapping[str, Array], boxes: list[Array], classes: list[Array]
    ) -> RoIs:
        parts, pictures = [], []
        for row, (some, labels) in enumerate(zip(boxes, classes, strict=True)):
            if len(some):
                levels = {name: outputs[name][row : row + 1] for name in self._levels}
                inputs = {"boxes": some, "classes": labels, **levels}
                parts.append(run_with_stages(self._graphs[MASKS], inputs, self._masks))
                pictures.append(np.full(len(some), row))
        names = [name for name in self._masks if parts and all(name in part for part in parts)]
        stages = {name: np.concatenate([part[name] for part in parts]) for name in names}
        side = self._recipe.mask_side
        return RoIs(
            pictures=np.concatenate([*pictures, np.zeros(0, np.int64)]),
            boxes=np.concatenate(boxes),
            classes=np.concatenate(classes),
            stages=_in_the_references_shape(stages),
            masks=np.concatenate([part["masks"] for part in parts])
            if parts
            else np.zeros((0, side, side), np.float32),
        )


def _rois(outputs: Mapping[str, Array], counts: list[int], names: Sequence[str]) -> RoIs:
    """Put the used rows of a batch's outputs one after the other."""

    def used(name: str) -> Array:
        return np.concatenate([outputs[name][row, :count] for row, count in enumerate(counts)])

    return RoIs(
        pictures=np.repeat(np.arange(len(counts)), counts),
        boxes=used("boxes"),
        classes=used("classes"),
        stages=_in_the_references_shape({name: used(name) for name in names}),
        masks=used("masks"),
    )


def _in_the_references_shape(stages: dict[str, Array]) -> dict[str, Array]:
    """Reshape mask logits (R, S, S) -> (R, 1, S, S); other stages have the reference's shape."""
    if "mask_logits" in stages:
        stages["mask_logits"] = stages["mask_logits"][:, None]
    return stages
