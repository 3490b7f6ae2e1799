"""The export of an instance model: one graph for detections and masks, or one graph for each."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, get_args

import msgspec

from pointrend_deploy.bundle import manifest as bundle_manifest
from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL
from pointrend_deploy.bundle.forms import Layout
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import UsageError
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions, MaskOutput, most_detections
from pointrend_deploy.progress import Progress
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.verbs.export.manifest import tensor_specs
from pointrend_deploy.verbs.export.options import ExportOptions

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.model.instance.model import InstanceModel
    from pointrend_deploy.parity.exported import VerificationBatch
    from pointrend_deploy.parity.record.runs import Run

FILES: Final = {"model": MODEL, "detector": DETECTOR, "masks": MASKS}
"""File of each graph, by the name graph/instance/export.py gives it."""


class InstanceExport:
    """See :class:`~pointrend_deploy.verbs.export.task.ExportTask`."""

    own_options: ClassVar[tuple[str, ...]] = ("detections", "masks", "layout")

    def __init__(self, recipe: InstanceRecipe, options: ExportOptions) -> None:
        _check(recipe, options)
        self._options = options
        chosen = self._graph_options = InstanceGraphOptions(
            padded_hw=options.padded_hw(recipe),
            batch=options.batch,
            ops=options.ops,
            detections=options.detections or recipe.box_head.detections,
            masks=options.masks or "prob",
            layout=options.layout or "single",
            preprocess=options.preprocess,
        )
        chosen.check(recipe)
        box_head = msgspec.structs.replace(recipe.box_head, detections=chosen.detections)
        self._recipe = msgspec.structs.replace(recipe, box_head=box_head)

    def load(self, weights: Path) -> InstanceModel:
        """Read the checkpoint into an ``InstanceModel`` that keeps as many detections."""
        from pointrend_deploy.model.instance.model import load_instance_model

        self._model = load_instance_model(
            self._recipe,
            weights,
            weights_key=self._options.weights_key,
            ignore_extra=self._options.ignore_extra,
        )
        return self._model

    def trace(self) -> dict[str, ModelProto]:
        """Trace ``model.onnx``, or ``detector.onnx`` and ``masks.onnx``."""
        from pointrend_deploy.graph.instance.export import export_instance_graphs, without_stages

        whole = msgspec.structs.replace(self._graph_options, stages=True)
        self._whole = export_instance_graphs(self._model, whole)
        shipped = without_stages(self._whole, self._recipe, self._graph_options)
        return {FILES[name]: graph for name, graph in shipped.items()}

    def described(self, manifest: Manifest, graphs: dict[str, ModelProto]) -> Manifest:
        """Add the masks' size and form, and the mask graph's file, inputs and outputs."""
        chosen = self._graph_options
        masks = graphs[MASKS].graph if MASKS in graphs else None
        instance = bundle_manifest.InstanceExport(
            detections=chosen.detections,
            masks=chosen.masks,
            mask_side=self._recipe.mask_side,
            layout=chosen.layout,
            mask_graphs={} if masks is None else {"fp32": MASKS},
            mask_inputs=() if masks is None else tensor_specs(masks.input),
            mask_outputs=() if masks is None else tensor_specs(masks.output),
        )
        return msgspec.structs.replace(manifest, instance=instance)

    def verify(
        self, graphs: dict[str, ModelProto], batch: VerificationBatch, progress: Progress
    ) -> Run:
        """Compare features, proposals, detections and masks, computed with stages as outputs."""
        from pointrend_deploy.parity.exported import check_loads
        from pointrend_deploy.parity.instance.exported import verify_instance_graphs

        for graph in graphs.values():
            check_loads(graph)
        return verify_instance_graphs(
            self._whole, self._model, self._graph_options, batch, progress
        )

    @staticmethod
    def summary_lines(manifest: Manifest) -> list[str]:
        """Say how many detections there are, and the masks' size, form and graphs."""
        _, export = manifest.instances
        layout = "one graph" if export.layout == "single" else "detector and masks apart"
        return [
            f"detections  at most {export.detections}, masks {export.mask_side}x"
            f"{export.mask_side} {export.masks}, {layout}"
        ]

    @staticmethod
    def notes(manifest: Manifest) -> list[str]:
        """Say that masks are computed faster on a CPU with --ops native, where it gathers rows."""
        from pointrend_deploy.graph.instance.points import GATHERED_FROM

        recipe, export = manifest.instances
        alike = export.layout != "single" or recipe.point_head is None
        if manifest.ops == "native" or alike or export.detections < GATHERED_FROM:
            return []
        return [
            "this bundle is for TensorRT: on a CPU, ONNX Runtime computes the masks of an "
            "--ops native bundle in about three quarters of the time (docs/bundle.md)"
        ]

    @staticmethod
    def agreement(run: Run) -> str:
        """Say how many detections match, and how well their boxes and masks do."""
        found = run.detections
        if found is None:
            return "no detections were compared"
        total = found.matched + found.only_reference
        said = f"{found.matched} of {total} detections matched"
        if found.matched and found.box_canvas_px is not None:
            said += f", boxes within {found.box_canvas_px:.2g} px"
        if found.mask_iou_mean is not None:
            said += f", masks' IoU {found.mask_iou_mean:.5f}"
        return said


def _check(recipe: InstanceRecipe, options: ExportOptions) -> None:
    """Raise UsageError where a choice makes no sense for the recipe."""
    for option, known in (("masks", get_args(MaskOutput)), ("layout", get_args(Layout))):
        value = getattr(options, option)
        if value is not None and value not in known:
            raise UsageError(f"--{option} {value} cannot be exported", f"use {', '.join(known)}")
    height, width = options.size_hw
    smallest = min(min(sizes) for sizes, _ in recipe.rpn.anchors)
    if min(height, width) < smallest:
        raise UsageError(
            f"--size {height}x{width} is smaller than one anchor: the smallest of {recipe.name} "
            f"has sides of {smallest:g} pixels",
            f"pictures are fitted inside --size: use {ceil(smallest)}x{ceil(smallest)} or more",
        )
    if options.detections is not None:
        most, why = most_detections(recipe, options.padded_hw(recipe))
        if not 1 <= options.detections <= most:
            raise UsageError(
                f"--detections {options.detections} is out of range", f"{why}: use 1 to {most}"
            )
