"""`export`: checkpoint in, verified bundle out, or nothing at all."""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pointrend_deploy import __version__, atomic
from pointrend_deploy.bundle import MODEL, PARITY, REPORT, WEIGHTS, Bundle, sha256_of
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import (
    MANIFEST,
    SCHEMA,
    Canvas,
    Manifest,
    Preprocess,
    WeightsRecord,
    encode_manifest,
)
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.recipe import Recipe
from pointrend_deploy.recipes import AnyRecipe, load_any_recipe
from pointrend_deploy.verbs.export_options import (
    ExportOptions,
    padded_size,
    refuse_to_fail_late,
    refuse_to_overwrite,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.graph.options import GraphOptions
    from pointrend_deploy.model.architectures import SemanticModel
    from pointrend_deploy.parity.results import Run


@dataclass(frozen=True)
class ExportResult:
    """A bundle that was verified and written."""

    bundle: Bundle
    label_agreement: float
    nodes: int
    seconds: float

    def summary(self) -> str:
        """A few lines for the terminal."""
        manifest = self.bundle.manifest
        canvas, path = manifest.canvas, self.bundle.path
        size, padded = (f"{h}x{w}" for h, w in (canvas.size_hw, canvas.padded_hw))
        model_mib = (path / MODEL).stat().st_size / 2**20
        return "\n".join(
            (
                f"bundle      {path}",
                f"model       {manifest.name}, {manifest.ops} ops, opset {manifest.opset}, "
                f"{self.nodes} nodes, {model_mib:.1f} MiB",
                f"canvas      {size}, padded to {padded}, batch {canvas.batch}",
                f"verified    ONNX Runtime against PyTorch: labels agree on "
                f"{self.label_agreement:.4%} of the pixels",
                f"time        {self.seconds:.1f} s",
                f"next        pointrend-deploy run {path} IMAGE_OR_FOLDER --out results/",
            )
        )


def export_bundle(
    recipe: Recipe | str | Path,
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
        recipe: a Recipe or the path of one.
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
    options.check()
    recipe = recipe if isinstance(recipe, Recipe) else _semantic(load_any_recipe(recipe))
    out, weights = Path(out), Path(weights)
    if out.name in ("", ".."):  # the folder one stands in, which is exchanged for another
        out = out.resolve()
    refuse_to_overwrite(out, force)
    refuse_to_fail_late(out, options.batch, verify_on)
    with progress.step("reading weights"):
        from pointrend_deploy.model.architectures import load_model

        model = load_model(recipe, weights)
        source_sha256 = sha256_of(weights)
    from pointrend_deploy.graph.trace import export_graph
    from pointrend_deploy.verbs.verification import verification_batch, verify_graph

    with progress.step("tracing the graph"):
        graph = export_graph(model, _graph_options(recipe, options))
    with atomic.replacing(out) as folder:
        folder.mkdir()
        with progress.step("writing"):
            (folder / MODEL).write_bytes(graph.SerializeToString())
            record = _write_weights(model, folder, options.include_weights, source_sha256, weights)
        manifest = _manifest(recipe, options, graph, record)
        run = verify_graph(
            graph, model, manifest, verification_batch(manifest, verify_on), progress
        )
        with progress.step("writing the report"):
            _finish(folder, manifest, run)
    agreement = next(row.agreement for row in run.stages if row.name == "labels")
    seconds = time.perf_counter() - started
    return ExportResult(Bundle.open(out), agreement or 0.0, len(graph.graph.node), seconds)


def _semantic(recipe: AnyRecipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    raise DeployError(
        f"{recipe.name} is an instance recipe, and this version exports semantic models only",
        "its PyTorch reference works: pointrend_deploy.load_model(recipe, weights).stages(image)",
    )


def _graph_options(recipe: Recipe, options: ExportOptions) -> GraphOptions:
    from pointrend_deploy.graph.options import GraphOptions

    return GraphOptions(
        padded_hw=padded_size(options.size_hw, recipe.input.size_divisibility),
        batch=options.batch,
        ops=options.ops,
        outputs=options.outputs,
        preprocess=options.preprocess,
    )


def _write_weights(
    model: SemanticModel, folder: Path, include: bool, source_sha256: str, source: Path
) -> WeightsRecord:
    from safetensors.torch import save

    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    raw = save(tensors, {"recipe": model.recipe.name})
    if include:
        (folder / WEIGHTS).write_bytes(raw)
    return WeightsRecord(
        file=WEIGHTS,
        sha256=hashlib.sha256(raw).hexdigest(),
        included=include,
        source_sha256=source_sha256,
        source_name=source.name,
    )


def _manifest(
    recipe: Recipe, options: ExportOptions, graph: ModelProto, weights: WeightsRecord
) -> Manifest:
    from pointrend_deploy.verbs.verification import tensor_specs

    return Manifest(
        schema=SCHEMA,
        name=recipe.name,
        created_by=f"pointrend-deploy {__version__}",
        recipe=recipe,
        canvas=Canvas(
            size_hw=options.size_hw,
            padded_hw=padded_size(options.size_hw, recipe.input.size_divisibility),
            batch=options.batch,
        ),
        preprocess=Preprocess(
            location=options.preprocess,
            channel_order=recipe.input.channel_order,
            pixel_mean=recipe.input.pixel_mean,
            pixel_std=recipe.input.pixel_std,
        ),
        inputs=tensor_specs(graph.graph.input),
        outputs=tensor_specs(graph.graph.output),
        ops=options.ops,
        opset=next(
            entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")
        ),
        graphs={"fp32": MODEL},
        weights=weights,
        versions=installed_versions(),
        files={},
    )


def installed_versions() -> dict[str, str]:
    """Versions of what an export is made with, by name."""
    found = {"pointrend-deploy": __version__, "python": platform.python_version()}
    for name in ("torch", "onnx", "onnxruntime", "onnxscript", "onnx-graphsurgeon", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
