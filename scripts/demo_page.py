"""The page of `make demo`: what PointRend adds to each demonstration model, with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image, ImageDraw

from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report.figures import Fact, milliseconds
from pointrend_deploy.report.gallery.tiles import GalleryItem, Tile
from pointrend_deploy.report.narrow import with_labels
from pointrend_deploy.report.precision_view import column_status
from pointrend_deploy.report.report import TEMPLATES
from pointrend_deploy.verbs.compare import CompareResult
from scripts import demo_precision
from scripts.demo_instances import STANDARD_HEAD

TEMPLATE = "demo_page.html.j2"
WORST = 3
"""Scenes shown of each kind of model after the first one: the worst."""
TRIED, DRAWN = 12, 2
"""Scenes tried in every precision, and how many of these are drawn: those INT8 changes most."""
TITLES = {"semantic": "semantic", "instance": "instances"}
GAP = 8
TITLE = 22


def render(
    compared: Mapping[str, CompareResult],
    semantic: Sequence[GalleryItem],
    beside: Sequence[GalleryItem],
    lower: Mapping[str, Sequence[GalleryItem]],
) -> str:
    """The page as one HTML file, in the style of the reports.

    Args:
        compared: what was found, by the folder of the model below the page.
        semantic: the semantic model on some scenes.
        beside: the two instance models on some scenes.
        lower: tiles of FP32, FP16 and INT8, by the folder of the model.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = {name: result.run for name, result in compared.items()}
    page = environment.get_template(TEMPLATE).render(
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        facts=facts(runs),
        semantic=semantic_rows(runs["semantic"]),
        instance=[
            *instance_rows(runs["instance-standard"], f"Mask R-CNN, {STANDARD_HEAD}"),
            *instance_rows(runs["instance"], "Mask R-CNN + PointRend"),
        ],
        passed=all(run.passed for run in runs.values()),
        warned=[
            f"{TITLES[name]}, {column.precision.upper()}"
            for name in lower
            for column in table_of(compared[name]).columns
            if column_status(column) == "warning"
        ],
        lower_passed=all(compared[name].precisions for name in lower),
        precisions={name: precision(compared[name]) for name in lower},
        lower_items={name: safe(items) for name, items in lower.items()},
        tried=TRIED,
        pictures={name: run.pictures for name, run in runs.items()},
        semantic_items=safe(semantic),
        instance_items=safe(beside),
    )
    return with_labels(page)


def facts(runs: Mapping[str, Run]) -> list[Fact]:
    """The figures in large type: what PointRend adds, and what a picture takes.

    Args:
        runs: the comparisons by the folder of the model.
    """
    labels = {row.prediction: row for row in runs["semantic"].metrics if row.against == "truth"}
    coarse, refined = (labels.get(key) for key in ("coarse", "bundle"))
    found = []
    if coarse is not None and refined is not None:
        bands = (row.boundary_iou.get("2 px") for row in (coarse, refined))
        note = "semantic: coarse head alone, then PointRend"
        found = [
            Fact(_to(*bands), "boundary IoU, 2 px", note),
            Fact(_to(coarse.miou, refined.miou), "mIoU", note),
        ]
    for measure in ("boundary", "mask"):
        scores = [
            row.ap
            for name in ("instance-standard", "instance")
            for row in runs[name].accuracy
            if (row.prediction, row.measure) == ("bundle", measure)
        ]
        if len(scores) == 2:
            note = "instances: standard mask head, then PointRend"
            found.append(Fact(_to(*scores), f"{measure} AP", note))
    both = [runs[name] for name in ("semantic", "instance")]
    times = [milliseconds(run.call_ms) for run in both if run.call_ms is not None]
    if len(times) == 2:
        height, width = both[0].canvas_hw
        found.append(
            Fact(
                " and ".join(times),
                "time of a picture",
                "semantic and instances, FP32 in ONNX Runtime on this CPU, "
                f"{height} \N{MULTIPLICATION SIGN} {width}, median while comparing; no benchmark",
            )
        )
    if all(run.graph_bytes is not None for run in both):
        sizes = [(run.graph_bytes or 0) / 1e6 for run in both]
        found.append(
            Fact(
                f"{sizes[0]:.1f} and {sizes[1]:.1f} MB",
                "FP32 graph",
                "semantic and instances, weights included",
            )
        )
    return found


def _to(before: float | None, after: float | None) -> str:
    return f"{percent(before)} \N{RIGHTWARDS ARROW} {percent(after)}"


def precision(result: CompareResult) -> dict[str, object]:
    """Heads and rows of the table of precisions, and what the INT8 graph has in INT8."""
    table = table_of(result)
    if table.task == "semantic":
        heads = ("labels as FP32's, %", "mIoU", "boundary IoU (2 px)")
        rows = demo_precision.semantic_rows(table)
    else:
        heads = ("box AP", "mask AP", "boundary AP")
        rows = demo_precision.instance_rows(table)
    return {"heads": heads, "rows": rows, "said": demo_precision.int8_said(table)}


def table_of(result: CompareResult) -> PrecisionTable:
    """The table of precisions of a comparison that has one."""
    if result.precisions is None:
        raise ValueError("no precisions were compared")
    return result.precisions


def semantic_rows(run: Run) -> list[tuple[str, str, str]]:
    """Name, mIoU and boundary IoU (2 px) of each prediction against the truth, in percent."""
    names = {
        "coarse": "its coarse head alone",
        "reference": "PointRend, PyTorch",
        "bundle": "PointRend, its bundle in ONNX Runtime",
    }
    rows = {row.prediction: row for row in run.metrics if row.against == "truth"}
    return [
        (name, percent(rows[key].miou), percent(rows[key].boundary_iou.get("2 px")))
        for key, name in names.items()
        if key in rows
    ]


def instance_rows(run: Run, name: str) -> list[tuple[str, str, str, str]]:
    """Name, box AP, mask AP and boundary AP of both sides, in percent."""
    names = {"reference": f"{name}, PyTorch", "bundle": f"{name}, its bundle in ONNX Runtime"}
    found = {(row.prediction, row.measure): row.ap for row in run.accuracy}
    return [
        (
            shown,
            percent(found.get((side, "box"))),
            percent(found.get((side, "mask"))),
            percent(found.get((side, "boundary"))),
        )
        for side, shown in names.items()
    ]


def percent(value: float | None) -> str:
    """One digit after the point; a dash where there is no number."""
    return "-" if value is None else f"{100 * value:.1f}"


def safe(items: Sequence[GalleryItem]) -> list[GalleryItem]:
    """Items for the template; their pictures are data URIs made here, not text of a user's."""

    def tiles(some: Sequence[Tile]) -> tuple[Tile, ...]:
        return tuple(replace(tile, uri=Markup(tile.uri)) for tile in some)

    return [
        replace(item, tiles=tiles(item.tiles), zooms=tiles(item.zooms), points=tiles(item.points))
        for item in items
    ]


def save_strip(item: GalleryItem, path: Path) -> None:
    """Put a picture's tiles side by side under their titles."""

    def picture(tile: Tile) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(tile.uri.split(",", 1)[1])))

    width = sum(tile.width + GAP for tile in item.tiles) - GAP
    height = max(tile.height for tile in item.tiles) + TITLE
    strip = Image.new("RGB", (width, height), "white")
    draw, x = ImageDraw.Draw(strip), 0
    for tile in item.tiles:
        draw.text((x + 2, 4), tile.label, fill="black")
        strip.paste(picture(tile), (x, TITLE))
        x += tile.width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    strip.save(path)
