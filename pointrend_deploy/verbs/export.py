"""`export`: checkpoint in, verified bundle out, or nothing at all."""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from pointrend_deploy import __version__, atomic
from pointrend_deploy.bundle import (
    GALLERY,
    MANIFEST,
    MODEL,
    PARITY,
    REPORT,
    SCHEMA,
    WEIGHTS,
    Bundle,
    Canvas,
    Manifest,
    Preprocess,
    WeightsRecord,
    encode_manifest,
    sha256_of,
)
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.recipe import Recipe
from pointrend_deploy.recipes import AnyRecipe, load_any_recipe

if TYPE_CHECKING:
    from onnx import ModelProto

    from pointrend_deploy.graph.options import GraphOptions
    from pointrend_deploy.model.architectures import SemanticModel
    from pointrend_deploy.parity.results import Run

Output = Literal["labels", "logits", "stages"]
OUTPUTS = get_args(Output)
LARGEST_SIDE = 16384
MADE_AGAIN = {MANIFEST, MODEL, WEIGHTS, PARITY, GALLERY, REPORT, "report.md"}


@dataclass(frozen=True)
class ExportOptions:
    """What the user chose.

    Attributes:
        size_hw: pictures are fitted inside this height and width.
        batch: pictures in one call.
        ops: ``plugin`` keeps the custom nodes with their bodies, ``native`` inlines the bodies.
        outputs: ``labels``, then ``logits`` and ``stages`` where wanted.
        preprocess: whether the graph takes normalised float32 or uint8 pixels.
        include_weights: whether the bundle holds weights.safetensors.
    """

    size_hw: tuple[int, int]
    batch: int = 1
    ops: Literal["plugin", "native"] = "plugin"
    outputs: tuple[Output, ...] = ("labels",)
    preprocess: Literal["outside", "in-graph"] = "outside"
    include_weights: bool = True

    def check(self) -> None:
        """Raise DeployError where a choice makes no sense."""
        if not all(1 <= side <= LARGEST_SIDE for side in self.size_hw):
            raise DeployError(
                f"--size {self.size_hw[0]}x{self.size_hw[1]} is out of range",
                f"each side is 1 to {LARGEST_SIDE} pixels",
            )
        if self.batch < 1:
            raise DeployError(f"--batch {self.batch} is out of range", "use 1 or more")
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or "labels" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise DeployError(
                f"--outputs {','.join(self.outputs)} cannot be exported",
                "use labels, optionally followed by logits and stages: labels,logits",
            )


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
    _refuse_to_overwrite(out, force)
    with progress.step("reading weights"):
        source_sha256 = sha256_of(weights)
        from pointrend_deploy.model.architectures import load_model

        model = load_model(recipe, weights)
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


def _refuse_to_overwrite(out: Path, force: bool) -> None:
    if not out.exists():
        return
    held = {entry.name for entry in out.iterdir()} if out.is_dir() else {out.name}
    if not out.is_dir() or (held and MANIFEST not in held):
        raise DeployError(f"{out} exists and is not a bundle", "choose another --out")
    if (extra := sorted(held - MADE_AGAIN)) and not force:
        raise DeployError(
            f"the bundle {out} also holds {', '.join(extra[:5])}, which an export would remove",
            "choose another --out, or give --force to replace everything in it",
        )


def padded_size(size_hw: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Height and width rounded up to multiples of ``divisor``."""
    height, width = size_hw
    return height + -height % divisor, width + -width % divisor


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
