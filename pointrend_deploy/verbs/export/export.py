"""`export`: checkpoint in, verified bundle out, or nothing at all.

MERGED: What an export says on the terminal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import PARITY, REPORT, Bundle, sha256_of
from pointrend_deploy.bundle.manifest import MANIFEST, Manifest, encode_manifest
from pointrend_deploy.pictures.canvas import Fitted
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import AnyRecipe, load_any_recipe
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.verbs.export.manifest import (
    GraphFacts,
    installed_versions,
    manifest_of,
    write_weights,
)
from pointrend_deploy.verbs.export.options import (
    ExportOptions,
    refuse_to_fail_late,
    refuse_to_overwrite,
)

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from pointrend_deploy.parity.record.runs import Run


__all__ = ["ExportResult", "export_bundle", "installed_versions"]


@dataclass(frozen=True)
class ExportResult:
    """A bundle that was verified and written, and the run that verified it."""

    bundle: Bundle
    run: Run
    nodes: int
    seconds: float

    @property
    def label_agreement(self) -> float | None:
        """Share of pixels whose labels agree; None of an instance bundle."""
        return next((row.agreement for row in self.run.stages if row.name == "labels"), None)

    def summary(self) -> str:
        """A few lines for the terminal."""
        return summary_lines(self.bundle, self.run, self.nodes, self.seconds)


class Task(Protocol):
    """What an export does differently for semantic and for instance models."""

    @property
    def model(self) -> nn.Module:
        """The reference."""

    def trace(self) -> dict[str, ModelProto]:
        """The graphs by their files' names."""

    def facts(self, graphs: dict[str, ModelProto]) -> GraphFacts:
        """What the manifest says of them."""

    def verify(
        self,
        graphs: dict[str, ModelProto],
        manifest: Manifest,
        pictures: list[Fitted],
        progress: Progress,
    ) -> Run:
        """Hold them against the reference. Raises ParityError where they differ."""


def export_bundle(
    recipe: AnyRecipe | str | Path,
    weights: str | Path,
    out: str | Path,
    options: ExportOptions,
    *,
    verify_on: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Trace a checkpoint into a bundle and verify it against PyTorch before it is put in place.

    Args:
        recipe: a recipe or the path of one.
        weights: .pkl, .pth or .safetensors.
        out: the bundle's folder. What stands there is replaced in one move at the very end, and
            only if it is a bundle; one that holds more than an export makes needs ``force``.
        options: see :class:`ExportOptions`.
        verify_on: a picture, or a folder whose first pictures are used; generated ones otherwise.
        force: replace a bundle with everything in it.
        progress: told of each step.

    Raises:
        DeployError: bad choices, recipe or weights, or the disk refuses; ``out`` is unchanged.
        ParityError: the graph differs from the reference, first at the stage named.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    recipe = recipe if isinstance(recipe, Recipe | InstanceRecipe) else load_any_recipe(recipe)
    options.check(recipe)
    out, weights = Path(out), Path(weights)
    if out.name in ("", ".."):  # the folder one stands in, which is exchanged for another
        out = out.resolve()
    refuse_to_overwrite(out, force)
    refuse_to_fail_late(out, options.batch, verify_on)
    with progress.step("reading weights"):
        task = _task(recipe, options, weights)
        source_sha256 = sha256_of(weights)
    from pointrend_deploy.pictures.generated import verification_batch

    with progress.step("tracing the graph"):
        graphs = task.trace()
    with atomic.replacing(out) as folder:
        folder.mkdir()
        with progress.step("writing"):
            for name, graph in graphs.items():
                (folder / name).write_bytes(graph.SerializeToString())
            record = write_weights(
                task.model, recipe.name, folder, options.include_weights, source_sha256, weights
            )
        manifest = manifest_of(recipe, options, task.facts(graphs), record)
        run = task.verify(graphs, manifest, verification_batch(manifest, verify_on), progress)
        with progress.step("writing the report"):
            _finish(folder, manifest, run)
    nodes = sum(len(graph.graph.node) for graph in graphs.values())
    return ExportResult(Bundle.open(out), run, nodes, time.perf_counter() - started)


def _task(recipe: AnyRecipe, options: ExportOptions, weights: Path) -> Task:
    if isinstance(recipe, InstanceRecipe):
        from pointrend_deploy.verbs.export.tasks import InstanceModelExport

        return InstanceModelExport(recipe, options, weights)
    from pointrend_deploy.verbs.export.tasks import SemanticExport

    return SemanticExport(recipe, options, weights)


def _finish(folder: Path, manifest: Manifest, run: Run) -> None:
    """Write parity.json, the report and, last, the manifest that lists every file."""
    from pointrend_deploy.parity.record.runs import Parity, encode, merged
    from pointrend_deploy.report.report import render_html

    parity = encode(merged(Parity(), "export", run))
    (folder / PARITY).write_bytes(parity)
    table = msgspec.to_builtins(manifest)
    (folder / REPORT).write_text(render_html(table, msgspec.json.decode(parity)), encoding="utf-8")
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))


def summary_lines(bundle: Bundle, run: Run, nodes: int, seconds: float) -> str:
    """The bundle, its graphs, what its verification found, and what to do next."""
    manifest, path = bundle.manifest, bundle.path
    canvas = manifest.canvas
    size, padded = (f"{h}x{w}" for h, w in (canvas.size_hw, canvas.padded_hw))
    mib = sum((path / name).stat().st_size for name in graph_files(manifest)) / 2**20
    lines = [
        f"bundle      {path}",
        f"model       {manifest.name}, {manifest.ops} ops, opset {manifest.opset}, "
        f"{nodes} nodes, {mib:.1f} MiB",
        f"canvas      {size}, padded to {padded}, batch {canvas.batch}",
    ]
    export = manifest.instance
    if export is not None:
        layout = "one graph" if export.layout == "single" else "detector and masks apart"
        lines.append(
            f"detections  at most {export.detections}, masks {export.mask_side}x"
            f"{export.mask_side} {export.masks}, {layout}"
        )
    lines += [f"verified    ONNX Runtime against PyTorch: {_found(run)}"]
    lines += [f"note        {note}" for note in run.notes]
    lines += [
        f"time        {seconds:.1f} s",
        f"next        pointrend-deploy run {path} IMAGE_OR_FOLDER --out results/",
    ]
    return "\n".join(lines)


def graph_files(manifest: Manifest) -> tuple[str, ...]:
    """The files of a bundle's FP32 graphs."""
    export = manifest.instance
    masks = [export.mask_graphs["fp32"]] if export is not None and export.mask_graphs else []
    return (manifest.graphs["fp32"], *masks)


def _found(run: Run) -> str:
    found = run.detections
    if found is None:
        agreement = next((row.agreement for row in run.stages if row.name == "labels"), None)
        return f"labels agree on {agreement or 0.0:.4%} of the pixels"
    total = found.matched + found.only_reference
    said = f"{found.matched} of {total} detections matched"
    if found.matched and found.box_canvas_px is not None:
        said += f", boxes within {found.box_canvas_px:.2g} px"
    if found.mask_iou_mean is not None:
        said += f", masks' IoU {found.mask_iou_mean:.5f}"
    return said
