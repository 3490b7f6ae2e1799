"""Count the layers and bytes of engines, by part of the network, in the builder's own tables.

    python benchmarks/engine_shape.py [--all | --model NAME ...] [--precision fp16] [--json FILE]

Builds with TensorRT-RTX for compute capability 8.6, which needs no GPU. Unless told otherwise the
two engines that stand in docs/engine.md are built: R50 + PointRend (instances, 480x640, 100
detections) and SemanticFPN R101 + PointRend (256x512), FP16, plugin ops. Weights are random and
every range of an INT8 graph ends at four: neither changes a layer or a byte.

Traced graphs are kept in --work, so that a second run only builds. They are traced again where the
code that makes them, or a package it uses, has changed. Milliseconds are what the bytes take at
the bandwidth of a Jetson AGX Orin and of an Orin Nano Super; nothing is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import onnx
import torch

from pointrend_deploy import atomic
from pointrend_deploy.bundle.forms import Layout, Ops, Precision
from pointrend_deploy.bundle.records import EngineShape, PartShape
from pointrend_deploy.engine.build import Request, build_engine
from pointrend_deploy.engine.machine import check_machine
from pointrend_deploy.engine.shape import BANDWIDTHS_GB_S, SHOWN_DEVICES, bound_ms
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.instance.export import export_instance_graphs
from pointrend_deploy.graph.instance.specs import InstanceGraphOptions
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.export import export_graph
from pointrend_deploy.model.instance.model import build_instance_model
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.progress import Bars
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import observable, place
from pointrend_deploy.quantize.qdq import insert
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.verbs.export.manifest import installed_versions

if TYPE_CHECKING:
    from onnx import ModelProto

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / "build" / "engine_shape"
TRACING: Final = ("graph", "model", "recipe")
"""Packages whose code decides what a traced graph is."""
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
RANGE: Final = 4.0


@dataclass(frozen=True)
class Model:
    """A recipe of export/ at one size; the other fields are for instance models alone."""

    recipe: str
    size_hw: tuple[int, int]
    detections: int = 100
    layout: Layout = "single"

    @property
    def name(self) -> str:
        """The recipe, and its layout where that is not the usual one."""
        return self.recipe if self.layout == "single" else f"{self.recipe}, {self.layout}"


MAIN: Final = (
    Model("pointrend_mask_rcnn_r50_fpn_coco", (480, 640)),
    Model("pointrend_semantic_fpn_r101_cityscapes", (256, 512)),
)
MODELS: Final = (
    *MAIN,
    Model("mask_rcnn_r50_fpn_coco", (480, 640)),
    Model("semantic_fpn_r50_coco_stuff", (480, 640)),
    Model("demo_semantic", (256, 256)),
    Model("demo_instance", (256, 256), 20),
    Model("demo_instance_standard", (256, 256), 20),
    Model("demo_instance", (256, 256), 20, "split"),
)


def traced(model: Model, ops: Ops) -> dict[str, ModelProto]:
    """Trace a model with random weights; its FP32 graphs by name."""
    torch.manual_seed(0)
    recipe = load_any_recipe(ROOT / "export" / f"{model.recipe}.toml")
    if not isinstance(recipe, InstanceRecipe):
        options = GraphOptions(padded_hw=model.size_hw, ops=ops)
        return {"model": export_graph(build_model(recipe).eval(), options)}
    box_head = msgspec.structs.replace(recipe.box_head, detections=model.detections)
    recipe = msgspec.structs.replace(recipe, box_head=box_head)
    chosen = InstanceGraphOptions(
        padded_hw=model.size_hw, ops=ops, detections=model.detections, layout=model.layout
    )
    return export_instance_graphs(build_instance_model(recipe).eval(), chosen)


def graphs_of(model: Model, ops: Ops, work: Path) -> dict[str, ModelProto]:
    """Trace a model, or read the graphs that the same code has traced before."""
    key = f"{model} {ops} {code_digest(model)} {installed_versions()}"
    name = f"{model.recipe}-{model.size_hw[0]}x{model.size_hw[1]}-{model.layout}-{ops}"
    folder = work / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        for outdated in work.glob(f"{name}-*"):
            shutil.rmtree(outdated, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(folder) as made:
            made.mkdir()
            for graph_name, graph in traced(model, ops).items():
                onnx.save(graph, made / f"{graph_name}.onnx")
    return {path.stem: onnx.load(path) for path in sorted(folder.glob("*.onnx"))}


def code_digest(model: Model) -> str:
    """SHA-256 of everything in this checkout that a traced graph is made from."""
    package = ROOT / "pointrend_deploy"
    files = [path for part in TRACING for path in sorted((package / part).rglob("*.py"))]
    whole = hashlib.sha256()
    for path in [*files, ROOT / "export" / f"{model.recipe}.toml"]:
        whole.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def in_precision(fp32: ModelProto, precision: Precision) -> ModelProto:
    """Make the graph that `quantize` makes, with the same range for every value."""
    if precision == "fp32":
        return fp32
    if precision == "fp16":
        return to_half(fp32).model
    placement = place(fp32)
    wide = {node.name for node in fp32.graph.node if node.op_type in ("Gemm", "MatMul")}
    half = to_half(fp32, wide & set(placement.int8)).model
    return insert(half, placement, dict.fromkeys(observable(fp32), RANGE), fp32)


def measured(model: Model, precision: Precision, ops: Ops, work: Path) -> list[dict[str, Any]]:
    """Build a model's engines; a row for each, with its shape as the manifest would have it.

    Raises:
        DeployError: no builder, no plugin library, or a graph that does not build.
    """
    (target,), library = check_machine("rtx:86", ops)
    rows = []
    for name, graph in graphs_of(model, ops, work).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            made = in_precision(graph, precision)
            onnx.save(made, path)
            rois = {"R": (1, model.detections, model.detections)}
            request = Request(path, name, target, precision, ops, 1024, rois, library)
            engine = build_engine(request, Path(folder), Bars())
            rows.append(
                {
                    "model": model.name,
                    "graph": name,
                    "canvas": f"{model.size_hw[0]}x{model.size_hw[1]}",
                    "precision": precision,
                    "ops": ops,
                    "builder": f"TensorRT-RTX {engine.version}",
                    "nodes": len(made.graph.node),
                    "engine_bytes": engine.path.stat().st_size,
                    "shape": msgspec.to_builtins(engine.shape),
                }
            )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as Markdown: a line for each part of each engine, and one for the whole."""
    bandwidths = [BANDWIDTHS_GB_S[device] for device in SHOWN_DEVICES]
    lines = [
        "| engine | part | layers | plugins | reformats | MB | "
        + " | ".join(f"ms at {bandwidth:.0f} GB/s" for bandwidth in bandwidths)
        + " |",
        "|---|---|---|---|---|---|" + "---|" * len(bandwidths),
    ]
    for row in rows:
        shape = msgspec.convert(row["shape"], EngineShape)
        graph = "" if row["graph"] == "model" else f" ({row['graph']})"
        open_sizes = "".join(f", {name} = {size}" for name, size in shape.sizes.items())
        name = f"{row['model']}{graph} {row['canvas']}{open_sizes}, {row['precision']}"
        whole = PartShape(
            layers=shape.layers,
            plugins=sum(shape.plugins.values()),
            reformats=shape.reformats,
            bytes=shape.bytes,
        )
        for part, counted in {"all": whole, **shape.parts}.items():
            cells = [
                name if part == "all" else "",
                part,
                *(f"{n:,}" for n in (counted.layers, counted.plugins, counted.reformats)),
                f"{counted.bytes / 1e6:,.1f}",
                *(f"{bound_ms(counted.bytes, bandwidth):.2f}" for bandwidth in bandwidths),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and print Markdown on stdout; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--all", action="store_true", help="all models, in three precisions")
    chosen.add_argument("--model", action="append", choices=sorted({m.name for m in MODELS}))
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--ops", choices=("plugin", "native"), default="plugin")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that keeps traced graphs")
    parser.add_argument("--json", type=Path, help="write the rows, and versions, to this file")
    given = parser.parse_args(arguments)
    models: tuple[Model, ...] = MODELS if given.all else MAIN
    if given.model:
        models = tuple(model for model in MODELS if model.name in given.model)
    precisions = given.precision or (PRECISIONS if given.all else ("fp16",))
    rows = []
    for model in models:
        for precision in precisions:
            try:
                rows += measured(model, precision, given.ops, given.work)
            except DeployError as error:
                print(f"error: {model.name}: {error.message}", file=sys.stderr)
                print(f"hint: {error.hint}", file=sys.stderr)
                return 1
    print(table(rows))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"versions": installed_versions(), "rows": rows}
        atomic.write_text(given.json, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
