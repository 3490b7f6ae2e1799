"""The demonstration in FP16 and INT8: the graphs made, their figures, and pictures of what changes.

ONNX Runtime computes on the CPU here: this shows the rounding of an engine, not its speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.record.precisions import PrecisionColumn, PrecisionTable
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.progress import Bars
from pointrend_deploy.report.gallery.semantic import make_item
from pointrend_deploy.report.gallery.tiles import (
    GalleryItem,
    Tile,
    Worst,
    dotted,
    make_tile,
)
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.instance.overlay import DRAW_ABOVE, instance_overlay, thing_colours
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.verbs.calibrate.calibrate import CalibrateOptions, calibrate_bundle
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.quantize import quantize_bundle

PICTURES: Final = Path(__file__).resolve().parent.parent / "calibration" / "scenes.sha256"
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
METHOD: Final = "entropy"
"""The calibration method."""

UInt8 = NDArray[np.uint8]


def quantized(bundle: Path) -> str:
    """Calibrate a bundle and make its FP16 and INT8 graphs; return the summaries of the verbs."""
    said = [calibrate_bundle(bundle, PICTURES, CalibrateOptions(method=METHOD), Bars()).summary()]
    for precision in ("fp16", "int8"):
        options = QuantizeOptions(precision=precision)
        said.append(quantize_bundle(bundle, options, Bars()).summary())
    return "\n\n".join(said)


def semantic_rows(table: PrecisionTable) -> list[tuple[str, ...]]:
    """Precision, MB of the graph, labels as FP32's, mIoU and boundary IoU (2 px), in percent."""
    rows: list[tuple[str, ...]] = []
    for column in table.columns:
        truth = column.truth
        miou = None if truth is None else truth.miou
        boundary = None if truth is None else truth.boundary_iou.get("2 px")
        same = f"{100 * column.agrees_fp32:.3f}" if column.agrees_fp32 is not None else "-"
        rows.append((*_named(column), same, _percent(miou), _percent(boundary)))
    return rows


def instance_rows(table: PrecisionTable) -> list[tuple[str, ...]]:
    """Precision, MB of the graph, box AP, mask AP and boundary AP, in percent."""
    rows: list[tuple[str, ...]] = []
    for column in table.columns:
        found = {row.measure: row.ap for row in column.accuracy}
        scores = (_percent(found.get(measure)) for measure in ("box", "mask", "boundary"))
        rows.append((*_named(column), *scores))
    return rows


def int8_said(table: PrecisionTable) -> str:
    """One sentence on what the INT8 graph has in INT8."""
    (column,) = (each for each in table.columns if each.precision == "int8")
    share = "-" if column.int8_flops is None else f"{100 * column.int8_flops:.1f} %"
    return (
        f"{column.int8_layers} layers compute in INT8, {share} of the work meant for it; "
        f"{len(column.left_out)} others, samplers and selection compute in FP16 or FP32."
    )


def items(bundle: Path, pictures: Sequence[Path], most: int) -> list[GalleryItem]:
    """Draw every precision's answers, and the pixels that INT8 marks otherwise than FP32.

    Args:
        bundle: a bundle with all precisions.
        pictures: files.
        most: number of pictures that are drawn: those that INT8 changes most, the worst first.
    """
    opened = Bundle.open(bundle)
    runners = {name: open_runner(opened, "onnx", precision=name) for name in PRECISIONS}
    worst = Worst(most)
    for path in pictures:
        rgb = read_picture(path).rgb
        answers: dict[str, Any] = {
            name.upper(): runner.predict(from_rgb(rgb, opened.manifest))
            for name, runner in runners.items()
        }
        things = {}
        if opened.manifest.recipe.task == "instance":
            things = {name: answer["instances"] for name, answer in answers.items()}
            maps = {name: painted(found) for name, found in things.items()}
        else:
            maps = {name: answer["labels"] for name, answer in answers.items()}
        changed = maps["FP32"] != maps["INT8"]
        badness = (float(changed.mean()),)
        if not worst.wants(badness):
            continue
        if things:
            item = _thing_item(path.stem, rgb, things, opened.manifest)
        else:
            item = make_item(path.stem, rgb, maps, opened.manifest.semantic.classes)
        share = f"INT8 not as FP32: {100 * changed.mean():.2f} %"
        tiles = (*item.tiles, make_tile(share, marked(rgb, changed)))
        worst.keep(badness, GalleryItem(item.name, tiles, item.legend))
    return worst.items


def painted(found: Instances) -> UInt8:
    """The class of each pixel (H, W), 0 where nothing is; the best of those drawn lie on top."""
    out = np.zeros(found.hw, np.uint8)
    for row in np.flatnonzero(found.scores >= DRAW_ABOVE)[::-1]:
        top, left, covered = found.patches[row]
        part = out[top : top + covered.shape[0], left : left + covered.shape[1]]
        part[covered] = found.classes[row] + 1
    return out


def marked(rgb: UInt8, where: NDArray[np.bool_]) -> UInt8:
    """The picture darkened, with the pixels of a mask (H, W) in yellow."""
    rows, columns = np.nonzero(where)
    return dotted(rgb, np.stack((columns, rows), axis=1))


def _thing_item(
    name: str, rgb: UInt8, things: Mapping[str, Instances], manifest: Manifest
) -> GalleryItem:
    classes = manifest.instances[0].classes
    colours = thing_colours(classes)
    tiles: list[Tile] = [make_tile("picture", rgb)]
    for title, found in things.items():
        drawn = instance_overlay(rgb, found, classes.names, colours)
        small = Image.fromarray(drawn).resize(rgb.shape[1::-1], Image.Resampling.LANCZOS)
        tiles.append(make_tile(title, np.asarray(small)))
    return GalleryItem(name, tuple(tiles), ())


def _named(column: PrecisionColumn) -> tuple[str, str]:
    size = "-" if column.graph_bytes is None else f"{column.graph_bytes / 1e6:.1f}"
    return column.precision.upper(), size


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
