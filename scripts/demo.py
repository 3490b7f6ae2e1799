"""`make demo`: export the demonstration models, run, quantize and compare them, write a page.

Everything goes to one folder: ``index.html`` (all models on one page), and for each of
``semantic/``, ``instance/`` and ``instance-standard/`` (the same boxes with Mask R-CNN's own mask
head) the ``bundle/`` with its ``report.html``, ``scenes/`` and ``pictures/`` (what `run` writes)
and ``side-by-side/``. The two with PointRend also get their FP16 and INT8 graphs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Bars
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.verbs.compare import CompareResult, compare_bundle, record
from pointrend_deploy.verbs.export.export import export_bundle
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.run import RunOptions, run_bundle
from scripts import demo_precision, threads
from scripts.demo_instances import POINTREND, STANDARD_HEAD, beside_one_another
from scripts.demo_page import DRAWN, TRIED, WORST, render, save_strip
from scripts.unpack_demo import unpack

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
SIZE = (256, 256)
FIRST = "0000"
"""Stem of the first scene."""


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


@dataclass(frozen=True)
class Shown:
    """What the demonstration of one model found.

    Attributes:
        said: what the verbs say of it.
        compared: beside PyTorch and with the scenes' truth.
        drawn: tiles of its precisions on the first scenes; none where it is not quantized.
    """

    said: str
    compared: CompareResult
    drawn: list[GalleryItem]


def main() -> int:
    """Run the demonstration; return 0 when every gate passed, else 3."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    out = parser.parse_args().out
    unpack()
    shown = show_all(out)
    compared = {folder: each.compared for folder, each in shown.items()}
    bundles = {
        STANDARD_HEAD: out / STANDARD.folder / "bundle",
        POINTREND: out / INSTANCE.folder / "bundle",
    }
    worst = [Path(item.name).stem for item in compared["instance"].gallery[:WORST]]
    beside = beside_one_another(bundles, INSTANCE.scenes, ANNOTATIONS, [FIRST, *worst])
    semantic = [first_scene(out), *compared["semantic"].gallery[:WORST]]
    strips = {"semantic": semantic, "instance": beside}
    for folder, items in strips.items():
        for item in items:
            save_strip(item, out / folder / "side-by-side" / f"{Path(item.name).stem}.png")
    drawn = {folder: each.drawn for folder, each in shown.items() if each.drawn}
    atomic.write_text(out / "index.html", render(compared, semantic, beside, drawn))
    print(f"look at     {out / 'index.html'}   all models: scores, pictures, links to the reports")
    print(f"            {out / 'semantic' / 'pictures' / 'overlays'}   photographs show the")
    print("            pipeline only: the models were trained on generated scenes")
    return 0 if all(compared.values()) else 3


def first_scene(out: Path) -> GalleryItem:
    """Draw the first semantic scene, whether it is among the worst or not."""
    compared = compare_bundle(
        out / SEMANTIC.folder / "bundle", SEMANTIC.scenes / f"{FIRST}.png", labels=SEMANTIC.labels
    )
    return compared.gallery[0]


def show_all(out: Path) -> dict[str, Shown]:
    """Show every model, two at a time where there are two cores, and print what is said of each.

    Raises:
        DeployError: of the first model, in the order printed, that cannot be shown.
    """
    cores = os.cpu_count() or 1
    processes = min(2, cores)
    shown = {}
    with ProcessPoolExecutor(
        processes, get_context("spawn"), threads.limit, (cores // processes,)
    ) as pool:
        # the longest first; the other two together take about as long
        started = {model: pool.submit(show, model, out) for model in (INSTANCE, SEMANTIC, STANDARD)}
        for model in (SEMANTIC, STANDARD, INSTANCE):
            shown[model.folder] = started[model].result()
            print(shown[model.folder].said, end="\n\n", flush=True)
    return shown


def show(model: Model, out: Path) -> Shown:
    """Export a model, run it over scenes and photographs, and compare it with PyTorch."""
    recipe = ROOT / "export" / f"{model.recipe}.toml"
    with redirect_stderr(Named(load_any_recipe(recipe).name, sys.stderr)):
        return _show(model, recipe, out)


def _show(model: Model, recipe: Path, out: Path) -> Shown:
    bundle = out / model.folder / "bundle"
    scenes = scenes_of(model)
    say("exporting")
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
    drawn: list[GalleryItem] = []
    if model.quantized:
        say("drawing FP32, FP16 and INT8")
        drawn = demo_precision.items(bundle, sorted(scenes.glob("*.png"))[:TRIED], DRAWN)
    return Shown("\n\n".join([*said, compared.summary()]), compared, drawn)


class Named(io.TextIOBase):
    """Text as whole lines that begin with a name, so that models beside one another can write.

    Args:
        name: of the model.
        stream: where the lines go.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream, self._open = name, stream, ""

    def write(self, text: str) -> int:
        """Pass on the lines that are complete."""
        *lines, self._open = (self._open + text).split("\n")
        for line in lines:
            self._stream.write(f"{self._name}: {line}\n")
        self._stream.flush()
        return len(text)


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
