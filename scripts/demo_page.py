"""The page of `make demo`: what PointRend adds to each demonstration model, with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image, ImageDraw

from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report.gallery.tiles import GalleryItem, Tile
from pointrend_deploy.verbs.compare import CompareResult
from scripts import demo_precision

TEMPLATE = Path(__file__).with_name("demo_page.html.j2")
GAP = 8
TITLE = 22
STANDARD, POINTREND = "standard mask head", "PointRend"


def render(
    compared: Mapping[str, CompareResult],
    beside: Sequence[GalleryItem],
    lower: Mapping[str, Sequence[GalleryItem]],
) -> str:
    """The page as one HTML file.

    Args:
        compared: what was found, by the folder of the model below the page.
        beside: tiles of the two instance models joined.
        lower: tiles of FP32, FP16 and INT8, by the folder of the model.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    semantic, standard, instance = (
        compared[name].run for name in ("semantic", "instance-standard", "instance")
    )
    return template.render(
        semantic=semantic_rows(semantic),
        instance=[
            *instance_rows(standard, f"Mask R-CNN, {STANDARD}"),
            *instance_rows(instance, "Mask R-CNN + PointRend"),
        ],
        passed=all(result.run.passed for result in compared.values()),
        lower_passed=all(compared[name].precisions for name in lower),
        precisions={name: precision(compared[name]) for name in lower},
        lower_items={
            name: [with_safe_uris(item) for item in items] for name, items in lower.items()
        },
        pictures={name: result.run.pictures for name, result in compared.items()},
        semantic_items=[with_safe_uris(item) for item in compared["semantic"].gallery],
        instance_items=[with_safe_uris(item) for item in beside],
    )


def precision(result: CompareResult) -> dict[str, object]:
    """Heads and rows of the table of precisions, and what the INT8 graph has in INT8."""
    table = result.precisions
    if table is None:
        raise ValueError("no precisions were compared")
    if table.task == "semantic":
        heads = ("labels as FP32's, %", "mIoU", "boundary IoU (2 px)")
        rows = demo_precision.semantic_rows(table)
    else:
        heads = ("box AP", "mask AP", "boundary AP")
        rows = demo_precision.instance_rows(table)
    return {"heads": heads, "rows": rows, "said": demo_precision.int8_said(table)}


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


def joined(
    standard: Sequence[GalleryItem], pointrend: Sequence[GalleryItem]
) -> tuple[GalleryItem, ...]:
    """The two models' answers to the same pictures, side by side with the truth."""
    others = {item.name: item for item in standard}
    items = []
    for item in pointrend:
        if item.name not in others:
            continue
        ours, theirs = (
            {tile.label: tile for tile in each.tiles} for each in (item, others[item.name])
        )
        tiles = [
            ours["picture"],
            retitled(theirs["this bundle"], STANDARD),
            retitled(ours["this bundle"], POINTREND),
            *(ours[name] for name in ("truth",) if name in ours),
        ]
        items.append(GalleryItem(item.name, tuple(tiles), item.legend))
    return tuple(items)


def retitled(tile: Tile, label: str) -> Tile:
    """The same tile under another title."""
    return Tile(label, tile.uri, tile.width, tile.height)


def with_safe_uris(item: GalleryItem) -> dict[str, object]:
    """An item for the template; its pictures are data URIs made here, not text of a user's."""
    return {
        "name": item.name,
        "legend": item.legend,
        "tiles": [
            {"label": tile.label, "uri": Markup(tile.uri), "width": tile.width}
            for tile in item.tiles
        ],
    }


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
