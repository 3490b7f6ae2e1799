"""The report of an instance bundle: what it says, and how a real browser shows it."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pointrend_deploy.parity.record.detections import AccuracyRow, DetectionsRow
from pointrend_deploy.parity.record.runs import Parity, Run, decode, encode
from pointrend_deploy.report import figures, report
from pointrend_deploy.report.terminal import table
from tests.fixtures.instance_runners import changed, dropped
from tests.report.example_instance_report import compared, make
from tests.report.example_report import NASTY
from tests.report.example_report import make as make_semantic
from tests.report.pages import (
    Balanced,
    Record,
    check_shown_whole,
    check_tables,
    visible,
)

SHOWN = 2 * (4 + 4 + 1)
"""Pictures of a report: of each of two, four tiles, the same enlarged, and the points."""
NAMES = (NASTY, "</table></style>", "f" * 200)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("bad"), dropped(1))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("nasty"), names=NAMES)


def test_a_passed_report_says_so_first(good: Record) -> None:
    words = visible(report.render_html(*good))
    assert "at most 20 detections, masks of 56" in words
    assert words.index("Passed") < words.index("Running it")
    assert "Failed" not in words
    assert "agrees with PyTorch in its detections and their masks" in words
    assert "(probabilities), one graph" in words
    assert "PyTorch's detections found again 23 of 23" in words
    assert 'open_runner("bundle/")' in words and 'result["instances"]' in words
    assert "labels" not in words.split("Versions and files")[0]
    for heading in ("Average precision against the truth, 5 pictures", "Near tie", "Boundary AP"):
        assert heading in words


def test_a_failed_report_names_the_picture_and_still_has_its_scores(bad: Record) -> None:
    words = visible(report.render_html(*bad))
    assert "What no near tie explains: val/scene" in words
    assert "differs from its PyTorch reference, first at stage detections" in words
    assert "val/scene 0.png: 1 detections are missing that nothing suppresses" in words
    assert "18 of 23" in words
    assert "Average precision against the truth" in words
    markdown = report.render_markdown(*bad)
    assert markdown.startswith("# tiny\\_instance: failed")
    assert "- Not explained: val/scene 0.png" in markdown


def test_figures_are_those_of_the_record(good: Record) -> None:
    html, markdown = report.render_html(*good), report.render_markdown(*good)
    run = msgspec.convert(good[1]["runs"]["compare"], Run)
    assert len(run.accuracy) == 6
    for row in run.accuracy:
        for value in (row.ap, row.ap50, row.ap75, row.small, row.medium, row.large):
            assert figures.average(value) in html
            assert figures.average(value) in markdown
    for picture in run.detected_pictures:
        assert picture.name in html
        assert picture.name in markdown
    assert "25 objects and 1 crowd" in markdown
    assert "torn" in html


def test_pictures_show_each_side_the_truth_and_the_points(good: Record) -> None:
    tiles = [tile.label for tile in good[2][0].tiles]
    assert tiles == ["picture", "coarse masks alone", "this bundle", "truth"]
    assert [tile.label for tile in good[2][0].zooms] == tiles
    assert [tile.label for tile in good[2][0].points] == ["step1: 196 points on the best object"]
    tags = Balanced(report.render_html(*good)).tags
    pictures = [attributes["src"] or "" for tag, attributes in tags if tag == "img"]
    assert len(pictures) == SHOWN
    assert sum(src.startswith("data:image/png;base64,") for src in pictures) == 8, "enlarged"
    assert sum(src.startswith("data:image/jpeg;base64,") for src in pictures) == 10


def test_pictures_that_failed_show_both_sides(bad: Record) -> None:
    failed = [item for item in bad[2] if "PyTorch reference" in [t.label for t in item.tiles]]
    assert failed == bad[2]


def test_every_table_of_the_markdown_is_whole(good: Record, bad: Record, nasty: Record) -> None:
    for record in (good, bad, nasty):
        check_tables(report.render_markdown(*record))


def test_names_cannot_break_the_page(nasty: Record) -> None:
    html = report.render_html(*nasty)
    assert "<script" not in html
    assert escape(NASTY, quote=False).split("(")[0] in html
    assert html.count("</style>") == 1
    Balanced(html)


def test_without_truth_no_score_is_shown(tmp_path: Path) -> None:
    manifest, parity, tiles = make(tmp_path, scored=False)
    html = report.render_html(manifest, parity, tiles)
    assert "Average precision" not in visible(html).split("What the words mean")[0]
    assert "mask AP" not in visible(html).split("What the words mean")[0]
    assert "truth" not in [tile.label for item in tiles for tile in item.tiles]
    assert "AP50" not in report.render_markdown(manifest, parity, tiles)


def test_a_verification_at_export_is_shown_beside_the_comparison(good: Record) -> None:
    run = msgspec.convert(good[1]["runs"]["compare"], Run)
    export = msgspec.structs.replace(
        run,
        kind="export",
        detected_pictures=(),
        accuracy=(),
        truth=None,
        detections=DetectionsRow(matched=0),
    )
    parity = msgspec.to_builtins(Parity(runs={"export": export, "compare": run}))
    words = visible(report.render_html(good[0], parity, good[2]))
    assert words.count("Detections, matched by class and overlap") == 2
    assert words.count("Picture by picture") == 1
    alone = msgspec.to_builtins(Parity(runs={"export": export}))
    assert "0 of 0" in visible(report.render_html(good[0], alone))


def test_the_record_comes_back_as_it_was_written(good: Record) -> None:
    parity = msgspec.convert(good[1], Parity)
    assert decode(encode(parity)) == parity


def test_a_record_of_an_earlier_version_is_read() -> None:
    old = b'{"schema": 1, "runs": {"compare": {"kind": "compare", "passed": true, "candidate": '
    old += b'"onnx", "reference": "torch", "created": "x", "canvas_hw": [1, 2]}}}'
    run = decode(old).runs["compare"]
    assert (run.detections, run.accuracy, run.truth) == (None, (), None)
    assert run.truth_notes == ()


def test_the_terminal_tells_the_same(tmp_path: Path) -> None:
    _, run, _ = compared(tmp_path, changed("boxes", (0, 0, 2), lambda x: x - 0.3))
    text = table(run, Path("out/report.html"))
    assert "FAILED: onnx against torch, 5 pictures" in text
    assert "see out/report.html" in text
    assert "unexplained: val/scene" in text
    assert re.search(r"boundary +bundle +\d+\.\d", text)
    assert "25 objects, 1 crowd;" in text
    assert "first stage that differs: detections" in text
    shown = text.replace(str(tmp_path), "")  # whose length is not the table's
    assert max(map(len, shown.splitlines())) < 140


def test_scores_that_do_not_exist_are_dashes() -> None:
    row = AccuracyRow(
        prediction="bundle",
        measure="mask",
        ap=0.5,
        ap50=None,
        ap75=0.25,
        small=None,
        medium=0.0,
        large=1.0,
    )
    assert [figures.average(v) for v in (row.ap, row.ap50, row.medium)] == [
        "50.0",
        figures.NONE,
        "0.0",
    ]
    assert figures.overlap(0.999999) == "0.99999"
    assert figures.overlap(1.0) == "1.00000"


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("which", ["good", "bad", "nasty"])
def test_the_browser_shows_it_whole(
    chromium: str, tmp_path: Path, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    page = report.render_html(*request.getfixturevalue(which))
    check_shown_whole(chromium, tmp_path, page, width, SHOWN + 4 * (which == "bad"))


def real_names(record: Record, key: str) -> dict[str, Any]:
    """The record with pictures as large and names as long as Cityscapes has them."""
    run = record[1]["runs"]["compare"]
    rows = [
        {
            **row,
            "name": f"frankfurt_000000_00{number}294",
            "size_hw": [1024, 2048],
            **(
                {"agreement": 0.99987, "first_divergent": "step0.point_logits"}
                if key[0] == "p"
                else {}
            ),
        }
        for number, row in enumerate(run[key])
    ]
    return {"schema": 1, "runs": {"compare": {**run, key: rows}}}


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_long_names_and_large_pictures_need_no_sideways_scrolling(
    chromium: str, tmp_path: Path, good: Record, task: str, width: int
) -> None:
    record = good if task == "instance" else make_semantic(tmp_path / "made")
    key = "detected_pictures" if task == "instance" else "per_picture"
    page = report.render_html(record[0], real_names(record, key), record[2])
    assert "frankfurt" in page
    check_shown_whole(chromium, tmp_path, page, width)
