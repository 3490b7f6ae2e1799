"""`export`: trace a checkpoint, verify the graphs and write a bundle, or write nothing at all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import PARITY, REPORT, Bundle, sha256_of
from pointrend_deploy.bundle.manifest import MANIFEST, Manifest, encode_manifest
from pointrend_deploy.progress import Numbered, Progress, Silent
from pointrend_deploy.recipe.read import AnyRecipe, load_any_recipe
from pointrend_deploy.verbs.export.checkpoint_lines import checkpoint_lines
from pointrend_deploy.verbs.export.manifest import installed_versions, manifest_of, write_weights
from pointrend_deploy.verbs.export.options import (
    ExportOptions,
    refuse_to_fail_late,
    refuse_to_overwrite,
)
from pointrend_deploy.verbs.export.task import TASKS, export_task

if TYPE_CHECKING:
    from pointrend_deploy.parity.record.runs import Run


STEPS: Final = 7
"""Steps of an export: weights, tracing, writing, PyTorch, ONNX Runtime, comparison, report."""

__all__ = ["ExportResult", "export_bundle", "installed_versions"]


@dataclass(frozen=True)
class ExportResult:
    """A bundle that was verified and written.

    Attributes:
        bundle: opened.
        run: the verification, in which everything passed.
        nodes: nodes of all graphs together.
        seconds: time the export took.
    """

    bundle: Bundle
    run: Run
    nodes: int
    seconds: float

    @property
    def label_agreement(self) -> float | None:
        """Share of pixels whose labels agree, 0 to 1; None where the model gives no labels."""
        return next((row.agreement for row in self.run.stages if row.name == "labels"), None)

    def summary(self) -> str:
        """Say in a few lines what was exported, how well it agrees, and what to do next."""
        manifest, path = self.bundle.manifest, self.bundle.path
        kind, canvas = TASKS[manifest.recipe.task], manifest.canvas
        size, padded = (f"{h}x{w}" for h, w in (canvas.size_hw, canvas.padded_hw))
        mib = sum((path / name).stat().st_size for name in manifest.graphs_of("fp32")) / 2**20
        lines = [
            f"bundle      {path}",
            f"model       {manifest.name}, {manifest.ops} ops, opset {manifest.opset}, "
            f"{self.nodes} nodes, {mib:.1f} MiB",
            f"canvas      {size}, padded to {padded}, batch {canvas.batch}",
            *kind.summary_lines(manifest),
            *checkpoint_lines(manifest),
            f"verified    ONNX Runtime against PyTorch: {kind.agreement(self.run)}",
            *(f"note        {note}" for note in self.run.notes),
            *(f"note        {note}" for note in kind.notes(manifest)),
            f"time        {self.seconds:.1f} s",
            f"next        pointrend-deploy run {path} IMAGE_OR_FOLDER --out results/",
        ]
        return "\n".join(lines)


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
        out: the bundle's folder. A bundle that is there already is replaced in one move at the
            very end; one with files that no export writes needs ``force``.
        options: see :class:`ExportOptions`.
        verify_on: a picture, or a folder whose first pictures are used; generated ones otherwise.
        force: replace a bundle with everything in it.
        progress: shows each step.

    Raises:
        DeployError: bad choices, recipe or weights, or the disk refuses; ``out`` is unchanged.
        ParityError: a graph differs from the reference; it names the first stage that does.
    """
    started = time.perf_counter()
    progress = Numbered(progress or Silent(), STEPS)
    recipe = load_any_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    task = export_task(recipe, options)
    out, weights = Path(out), Path(weights)
    if out.name in ("", ".."):  # the folder one stands in, which is exchanged for another
        out = out.resolve()
    refuse_to_overwrite(out, force)
    refuse_to_fail_late(out, options.batch, verify_on)
    with progress.step("reading weights"):
        model = task.load(weights)
        source_sha256 = sha256_of(weights)
    from pointrend_deploy.parity.exported import VerificationBatch
    from pointrend_deploy.pictures.generated import verification_batch
    from pointrend_deploy.verbs.export.duration import expected_seconds, in_words

    tracing, whole = expected_seconds(model, recipe, options)
    with progress.step(
        f"tracing and optimising the graph (about {in_words(tracing)}, "
        f"the whole export {in_words(whole)})"
    ):
        graphs = task.trace()
    with atomic.replacing(out) as folder:
        folder.mkdir()
        with progress.step("writing"):
            for name, graph in graphs.items():
                (folder / name).write_bytes(graph.SerializeToString())
            record = write_weights(
                model, recipe.name, folder, options.include_weights, source_sha256, weights
            )
        not_checked = model.fitted.not_checked if model.fitted else ()
        manifest = manifest_of(recipe, options, graphs, record, not_checked)
        manifest = task.described(manifest, graphs)
        batch = VerificationBatch(manifest, verification_batch(manifest, verify_on))
        run = task.verify(graphs, batch, progress)
        with progress.step("writing the report"):
            _finish(folder, manifest, run)
    nodes = sum(len(graph.graph.node) for graph in graphs.values())
    return ExportResult(Bundle.open(out), run, nodes, time.perf_counter() - started)


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
