"""`export`: checkpoint in, verified bundle out, or nothing at all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle import PARITY, REPORT, Bundle, sha256_of
from pointrend_deploy.instance_recipe import InstanceRecipe
from pointrend_deploy.manifest import MANIFEST, Manifest, encode_manifest
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.recipe import Recipe
from pointrend_deploy.recipes import AnyRecipe, load_any_recipe
from pointrend_deploy.run.preprocess import Fitted
from pointrend_deploy.verbs.export_manifest import (
    GraphFacts,
    installed_versions,
    manifest_of,
    write_weights,
)
from pointrend_deploy.verbs.export_options import (
    ExportOptions,
    refuse_to_fail_late,
    refuse_to_overwrite,
)
from pointrend_deploy.verbs.export_summary import summary_lines

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from pointrend_deploy.parity.results import Run

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
    from pointrend_deploy.verbs.verification import verification_batch

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
        from pointrend_deploy.verbs.export_instance import InstanceModelExport

        return InstanceModelExport(recipe, options, weights)
    from pointrend_deploy.verbs.export_semantic import SemanticExport

    return SemanticExport(recipe, options, weights)


def _finish(folder: Path, manifest: Manifest, run: Run) -> None:
    """Write parity.json, the report and, last, the manifest that lists every file."""
    from pointrend_deploy.parity.report import render_html
    from pointrend_deploy.parity.results import Parity, encode, merged

    parity = encode(merged(Parity(), "export", run))
    (folder / PARITY).write_bytes(parity)
    table = msgspec.to_builtins(manifest)
    (folder / REPORT).write_text(render_html(table, msgspec.json.decode(parity)), encoding="utf-8")
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))
