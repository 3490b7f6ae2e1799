"""`make demo`: export the demonstration models, run, quantize and compare them, write a page.

Everything goes to one folder: ``index.html`` (all models on one page), and for each of
``semantic/``, ``instance/`` and ``instance-standard/`` (the same boxes with Mask R-CNN's own mask
head) the ``bundle/`` with its ``report.html``, ``scenes/`` and ``pictures/`` (what `run` writes)
and ``side-by-side/``. The two with PointRend also get their FP16 and INT8 graphs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Bars
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.verbs.compare import CompareResult, compare_bundle, record
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.run import RunOptions, run_bundle
from scripts import demo_precision
from scripts.demo_page import joined, render, save_strip
from scripts.unpack_demo import unpack

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
SIZE = (256, 256)
DRAWN = 4
"""Scenes drawn in every precision."""


@dataclass(frozen=True)
class Model:
    """A demonstration model: its folder below OUT, its recipe and the truth of its scenes."""

    folder: str
    recipe: str
    scenes: Path
    labels: Path | None = None
    coco: Path | None = None
    quantized: bool = True


SEMANTIC = Model("semantic", "demo_semantic", DEMO / "scenes", labels=DEMO / "labels")
ANNOTATIONS = DEMO / "instance" / "annotations.json"
INSTANCE = Model("instance", "demo_instance", DEMO / "instance", coco=ANNOTATIONS)
STANDARD = Model(
    "instance-standard", "demo_instance_standard", DEMO / "instance", None, ANNOTATIONS, False
)


def main() -> int:
    """Run the demonstration; return 0 when every gate passed, else 3."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    out = parser.parse_args().out
    unpack()
    compared = {model.folder: show(model, out) for model in (SEMANTIC, STANDARD, INSTANCE)}
    beside = joined(compared["instance-standard"].gallery, compared["instance"].gallery)
    strips = {"semantic": compared["semantic"].gallery, "instance": beside}
    for folder, items in strips.items():
        for item in items:
            save_strip(item, out / folder / "side-by-side" / f"{Path(item.name).stem}.png")
    drawn = {model.folder: lower(model, out) for model in (SEMANTIC, INSTANCE)}
    atomic.write_text(out / "index.html", render(compared, beside, drawn))
    print(f"look at     {out / 'index.html'}   both models: scores, pictures, links to the reports")
    print(f"            {out / 'semantic' / 'pictures' / 'overlays'}   photographs show the")
    print("            pipeline only: the models were trained on generated scenes")
    return 0 if all(compared.values()) else 3


def show(model: Model, out: Path) -> CompareResult:
    """Export a model, run it over scenes and photographs, and compare it with PyTorch."""
    bundle = out / model.folder / "bundle"
    recipe = ROOT / "export" / f"{model.recipe}.toml"
    scenes = scenes_of(model)
    say(f"{load_any_recipe(recipe).name}: exporting")
    exported = export_bundle(
        recipe,
        DEMO / f"{model.recipe}.safetensors",
        bundle,
        ExportOptions(size_hw=SIZE),
        verify_on=scenes,
        force=True,
        progress=Bars(),
    )
    say("running ONNX Runtime on scenes and photographs")
    run_bundle(bundle, scenes, out / model.folder / "scenes", RunOptions("onnx"))
    run_bundle(bundle, DEMO / "pictures", out / model.folder / "pictures", RunOptions("onnx"))
    said = [exported.summary()]
    if model.quantized:
        say("calibrating, and making the FP16 and INT8 graphs")
        said.append(demo_precision.quantized(bundle))
    say("comparing with PyTorch and with the scenes' exact truth")
    compared = compare_bundle(
        bundle,
        model.scenes,
        labels=model.labels,
        coco=model.coco,
        precisions=("all",) if model.quantized else None,
    )
    record(compared)
    print("\n\n".join([*said, compared.summary()]), end="\n\n")
    return compared


def lower(model: Model, out: Path) -> list[GalleryItem]:
    """Draw the tiles of FP32, FP16 and INT8 on the first scenes."""
    say("drawing FP32, FP16 and INT8")
    scenes = sorted(scenes_of(model).glob("*.png"))[:DRAWN]
    return demo_precision.items(out / model.folder / "bundle", scenes)


def scenes_of(model: Model) -> Path:
    """Return the folder of a model's scenes."""
    return model.scenes if model.coco is None else model.scenes / "scenes"


def say(what: str) -> None:
    """Print a line of progress on stderr."""
    print(what, file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeployError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
