"""The demonstration's page: figures of every precision, and tiles of what INT8 changes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.record.precisions import (
    LabelFigures,
    PrecisionColumn,
    PrecisionGate,
    PrecisionTable,
)
from pointrend_deploy.parity.record.runs import MetricRow
from pointrend_deploy.report.gallery.tiles import GalleryItem, make_tile
from pointrend_deploy.run.instance.instances import Instances
from scripts import demo_precision
from scripts.demo_page import facts, render
from tests.parity.record.test_runs import example
from tests.report.pages import Balanced, check_shown_whole

BLACK = np.zeros((8, 8, 3), np.uint8)
TILES = tuple(make_tile(f"tile {name}", BLACK) for name in ("picture", "x" * 60, "INT8", "truth"))
ITEM = GalleryItem("scene<1>.png", TILES, (("ring", "#000000"),), zooms=TILES)


def column(precision: Any, miou: float, **changes: Any) -> PrecisionColumn:
    return PrecisionColumn(
        precision=precision,
        runner="onnx",
        graph_bytes=1_850_000,
        agrees_fp32=0.99968,
        truth=LabelFigures(miou=miou, boundary_iou={"2 px": miou - 0.3, "2 %": None}),
        **changes,
    )


def semantic_table(passed: bool = True) -> PrecisionTable:
    gate = PrecisionGate(
        name="mIoU", value=0.02, limit=0.005, op="<=", reason="written", passed=passed
    )
    int8 = column(
        "int8", 0.8123, int8_layers=41, int8_flops=0.987, left_out={"a": "x"}, gates=(gate,)
    )
    columns = (column("fp32", 0.824), column("fp16", 0.8242), int8)
    return PrecisionTable(
        task="semantic", created="now", pictures=3, stage_pictures=1, truth=True, columns=columns
    )


def instance_table() -> PrecisionTable:
    def rows(drop: float) -> tuple[AccuracyRow, ...]:
        aps = {"box": 0.572, "mask": 0.557, "boundary": 0.409}
        rest: Any = dict.fromkeys(("ap50", "ap75", "small", "medium", "large"))
        return tuple(
            AccuracyRow(prediction="bundle", measure=name, ap=ap - drop, **rest)  # type: ignore[arg-type]
            for name, ap in aps.items()
        )

    columns = tuple(
        PrecisionColumn(precision=name, runner="onnx", accuracy=rows(drop))  # type: ignore[arg-type]
        for name, drop in (("fp32", 0.0), ("fp16", 0.0001), ("int8", 0.003))
    )
    return PrecisionTable(
        task="instance", created="now", pictures=3, stage_pictures=1, truth=True, columns=columns
    )


def page(passed: bool = True, semantic: PrecisionTable | None = None) -> str:
    item = ITEM
    compared: Any = {
        name: SimpleNamespace(run=example(), precisions=table, gallery=())
        for name, table in (
            ("semantic", semantic or semantic_table(passed)),
            ("instance-standard", None),
            ("instance", instance_table()),
        )
    }
    return render(compared, [item], [item], {"semantic": [item], "instance": [item]})


def test_the_page_has_the_figures_of_every_precision() -> None:
    shown = " ".join(page().split())
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in shown.split("<tr>")]
    assert ["FP16", "1.9", "99.968", "82.42", "52.42"] in rows
    assert ["INT8", "-", "56.90", "55.40", "40.60"] in rows
    assert "41 layers compute in INT8, 98.7 % of the work meant for it; 1 others" in shown
    assert "not an engine" in shown
    assert "scene&lt;1&gt;.png" in shown
    assert "scene<1>" not in shown


def test_a_precision_beyond_its_limit_is_said_first() -> None:
    assert "lose no more than their limits" in page()
    spoiled = page(passed=False)
    assert "loses more than its limit" in spoiled
    assert "lose no more than" not in spoiled


def test_a_warning_is_named() -> None:
    assert "✓ Passed" in page()
    table = semantic_table()
    int8 = msgspec.structs.replace(table.columns[2], agrees_fp32=0.5)
    table = msgspec.structs.replace(table, columns=(*table.columns[:2], int8))
    warned = page(semantic=table)
    assert "differ from FP32's in: semantic, INT8;" in warned
    assert "⚠ Warning" in warned and "✓ Passed" not in warned


def things(scores: list[float]) -> Instances:
    """One square of class 1 and, over part of it, one of class 0."""
    squares = ((0, 0, np.ones((4, 4), np.bool_)), (2, 2, np.ones((4, 4), np.bool_)))
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6]], np.float32)
    return Instances(boxes, np.array(scores, np.float32), np.array([1, 0]), (8, 8), squares)


def test_a_pixel_has_the_class_of_the_best_thing_over_it() -> None:
    both = demo_precision.painted(things([0.9, 0.6]))
    assert (both[:4, :4] == 2).all()
    assert both[5, 5] == 1
    assert both[7, 7] == 0
    alone = demo_precision.painted(things([0.9, 0.4]))
    assert alone[5, 5] == 0, "a thing below the score from which things are drawn"


def test_changed_pixels_are_marked_where_they_are() -> None:
    where = np.zeros((64, 96), np.bool_)
    where[10, 20] = where[50, 80] = True
    shown = demo_precision.marked(np.full((64, 96, 3), 200, np.uint8), where)
    yellow = shown[..., 0].astype(int) - shown[..., 2] > 100
    assert yellow[10, 20]
    assert yellow[50, 80]
    assert not yellow[30:45].any()


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_tiles_show_each_precision_and_count_what_int8_changes(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubles stand for the runners; INT8 marks one more row, or misses a thing."""
    Image.fromarray(BLACK).save(tmp_path / "black.png")
    labels = {name: np.zeros((8, 8), np.uint8) for name in demo_precision.PRECISIONS}
    labels["int8"][0] = 1
    answers = {
        name: {"labels": labels[name]}
        if task == "semantic"
        else {"instances": things([0.9, 0.4 if name == "int8" else 0.6])}
        for name in demo_precision.PRECISIONS
    }
    classes = SimpleNamespace(names=("one", "two"), colours=((9, 9, 9), (200, 10, 10)))
    manifest = SimpleNamespace(
        recipe=SimpleNamespace(task=task),
        preprocess=SimpleNamespace(channel_order="RGB"),
        semantic=SimpleNamespace(classes=classes),
        instances=(SimpleNamespace(classes=classes), None),
    )
    opened = SimpleNamespace(manifest=manifest)
    monkeypatch.setattr(demo_precision, "Bundle", SimpleNamespace(open=lambda path: opened))
    monkeypatch.setattr(
        demo_precision,
        "open_runner",
        lambda bundle, runner, precision: SimpleNamespace(predict=lambda rgb: answers[precision]),
    )
    (item,) = demo_precision.items(tmp_path, [tmp_path / "black.png"], 1)
    assert item.name == "black"
    titles = [tile.label for tile in item.tiles]
    assert titles[:4] == ["picture", "FP32", "FP16", "INT8"]
    changed = 8 / 64 if task == "semantic" else 12 / 64
    assert titles[4] == f"INT8 not as FP32: {100 * changed:.2f} %"
    by_title = {tile.label: tile.uri for tile in item.tiles}
    assert by_title["FP32"] == by_title["FP16"] != by_title["INT8"]


def test_the_semantic_pair_comes_first() -> None:
    told = " ".join(" ".join(Balanced(page()).words).split())
    assert told.index("Semantic: the coarse head") < told.index("Instances: the same boxes")


def heads(**changes: Any) -> dict[str, str]:
    """The figures in large type, by name, of three runs."""
    rows = tuple(
        MetricRow(
            prediction=name,
            against="truth",
            pictures=2,
            agreement=None,
            miou=miou,
            boundary_iou={"2 px": miou / 2},
        )
        for name, miou in (("coarse", 0.5), ("bundle", 0.75))
    )
    run = msgspec.structs.replace(example(), metrics=rows, **changes)
    accuracy = {"instance-standard": 0.3, "instance": 0.4}
    runs = {"semantic": run}
    for name, drop in accuracy.items():
        found = instance_table().columns[0].accuracy
        runs[name] = msgspec.structs.replace(
            run, accuracy=tuple(msgspec.structs.replace(row, ap=drop) for row in found)
        )
    return {fact.name: fact.value for fact in facts(runs)}


def test_the_head_has_what_pointrend_adds_and_what_it_takes() -> None:
    assert heads(call_ms=12.345, graph_bytes=3_400_000) == {
        "boundary IoU, 2 px": "25.0 \N{RIGHTWARDS ARROW} 37.5",
        "mIoU": "50.0 \N{RIGHTWARDS ARROW} 75.0",
        "boundary AP": "30.0 \N{RIGHTWARDS ARROW} 40.0",
        "mask AP": "30.0 \N{RIGHTWARDS ARROW} 40.0",
        "time of a picture": "12.3 ms and 12.3 ms",
        "FP32 graph": "3.4 and 3.4 MB",
    }
    assert "time of a picture" not in heads()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_browser_shows_it_whole(chromium: str, tmp_path: Path, width: int) -> None:
    check_shown_whole(chromium, tmp_path, page(), width, pictures=4 * len(ITEM.tiles + ITEM.zooms))
