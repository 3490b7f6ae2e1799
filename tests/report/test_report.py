from __future__ import annotations

import re
from html import escape
from pathlib import Path

import msgspec
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.report import figures, report
from pointrend_deploy.report.terminal import table
from tests.report.example_report import NASTY, make
from tests.report.pages import (
    Balanced,
    Record,
    check_shown_whole,
    check_tables,
    probe,
    visible,
)

SHOWN = 2 * (4 + 4 + 2)
"""Pictures of a report: of each of two, four tiles, the same enlarged, and two steps' points."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("bad"), "k clamped")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Record:
    names = (NASTY, "</table></style>", '"><img src=x>', "d", "e", "f" * 300)
    return make(tmp_path_factory.mktemp("nasty"), names=names)


def test_a_passed_report_says_so_first(good: Record) -> None:
    words = visible(report.render_html(*good))
    assert "Passed" in words
    assert words.index("Passed") < words.index("Running it")
    assert "Failed" not in words
    assert "agrees with PyTorch in all 8 stages" in words
    for heading in ("Against the truth, 4 pictures", "Stage by stage", "Points, step by step"):
        assert heading in words


def test_a_failed_report_names_the_first_stage_and_still_has_its_scores(bad: Record) -> None:
    words = visible(report.render_html(*bad))
    assert "differs from its PyTorch reference, first at stage step0.indices" in words
    assert "96 points an image where 192 are expected" in words
    assert "Against the truth, 4 pictures" in words
    assert "Passed" not in words
    markdown = report.render_markdown(*bad)
    assert markdown.startswith("# tiny: failed")
    assert "## Against the truth, 4 pictures" in markdown


def test_figures_are_those_of_the_record(good: Record) -> None:
    html, markdown = report.render_html(*good), report.render_markdown(*good)
    run = good[1]["runs"]["compare"]
    for row in run["metrics"]:
        for value in (row["miou"], *row["boundary_iou"].values()):
            assert figures.score(value) in html
            assert figures.score(value) in markdown
    for stage in run["stages"]:
        assert f"<code>{stage['name']}</code>" in html
        assert figures.small(stage["max_abs"]) in html
    for name, digest in good[0]["files"].items():
        assert name in html
        assert digest in html
    assert "torn" in html, "what was left out is said"


def test_means_say_which_classes_they_are_over(good: Record) -> None:
    manifest, parity, gallery = good
    run = msgspec.convert(parity["runs"]["compare"], Run)
    classes = run.metrics[0].classes
    absent = msgspec.structs.replace(classes[1], iou=None)
    rows = tuple(
        msgspec.structs.replace(row, classes=(classes[0], absent, *classes[2:]))
        for row in run.metrics
    )
    run = msgspec.structs.replace(run, metrics=rows)
    note = f"means over the {len(classes) - 1} of {len(classes)} classes that the truth has"
    record = {**parity, "runs": {"compare": msgspec.to_builtins(run)}}
    assert note in visible(report.render_html(manifest, record, gallery))
    assert note in report.render_markdown(manifest, record, gallery)
    assert note in table(run, Path("report.html"))
    assert note not in table(msgspec.convert(parity["runs"]["compare"], Run), Path("report.html"))


def test_scores_stand_with_their_intervals_or_with_why_there_are_none(good: Record) -> None:
    manifest, parity, gallery = good
    run = msgspec.convert(parity["runs"]["compare"], Run)
    assert (run.pictures, run.intervals) == (4, ())
    row = ScoreInterval(
        score="mIoU",
        value=0.7,
        low=0.6543,
        high=0.7432,
        change=-0.001,
        change_low=-0.0021,
        change_high=0.0003,
        pictures=36,
        draws=1000,
    )
    with_row = msgspec.structs.replace(run, intervals=(row,))
    figure = (
        "mIoU 70.00 (65.43 to 74.32); beside PyTorch "
        f"{figures.MINUS}0.10 ({figures.MINUS}0.21 to +0.03), no loss seen on 36 pictures"
    )
    without = "4 pictures cannot show how far the scores would differ"
    for shown, said, missing in ((with_row, figure, without), (run, without, figure)):
        record = {**parity, "runs": {"compare": msgspec.to_builtins(shown)}}
        html, markdown = (
            visible(report.render_html(manifest, record, gallery)),
            report.render_markdown(manifest, record, gallery),
        )
        for place in (html, markdown, table(shown, Path("report.html"))):
            assert said in place and missing not in place


def test_pictures_stand_in_the_file_and_nothing_is_loaded(good: Record) -> None:
    html = report.render_html(*good)
    tags = Balanced(html).tags
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == SHOWN
    kinds = ("data:image/jpeg;base64,", "data:image/png;base64,")
    assert all((each["src"] or "").startswith(kinds) for each in pictures)
    assert all(each["alt"] for each in pictures)
    assert len(html) < 5_000_000
    assert not [tag for tag, _ in tags if tag in ("script", "iframe", "object")]
    for tag, attributes in tags:
        for name in ("src", "href", "srcset", "action"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), (tag, attributes)
    assert "url(" not in html
    assert "@import" not in html


def test_names_cannot_break_the_page(nasty: Record) -> None:
    html = report.render_html(*nasty)
    assert "<script" not in html
    assert "<img src=x>" not in html
    assert escape(NASTY, quote=False).split("(")[0] in html
    assert NASTY in visible(html)
    assert html.count("</style>") == 1


def test_names_cannot_break_the_markdown(nasty: Record) -> None:
    manifest, parity, gallery = nasty
    manifest = {**manifest, "versions": {NASTY: "1 | 2\n# heading"}}
    markdown = report.render_markdown(manifest, parity, gallery)
    assert "<script" not in markdown
    line = next(line for line in markdown.splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert "# heading" not in markdown.splitlines()


def test_every_table_of_the_markdown_is_whole(good: Record) -> None:
    check_tables(report.render_markdown(*good))


def test_a_bundle_never_compared_is_reported_as_that(good: Record) -> None:
    words = visible(report.render_html(good[0], {"schema": 1, "runs": {}}))
    assert "never compared with its PyTorch reference" in words
    assert "Passed" not in words
    assert "not compared" in report.render_markdown(good[0], {})


def test_without_truth_the_mutual_scores_remain(good: Record) -> None:
    run = good[1]["runs"]["compare"]
    mutual = [row for row in run["metrics"] if row["against"] == "reference"]
    pictures = [{**row, "miou": {}, "boundary_iou_2px": {}} for row in run["per_picture"]]
    parity = {
        "schema": 1,
        "runs": {"compare": {**run, "metrics": mutual, "per_picture": pictures}},
    }
    words = visible(report.render_html(good[0], parity))
    assert "Against each other" in words
    assert "Against the truth" not in words


def test_a_bundle_without_weights_tells_what_compare_needs(good: Record) -> None:
    manifest = {**good[0], "weights": {**good[0]["weights"], "included": False}}
    for text in (report.render_html(manifest, good[1]), report.render_markdown(manifest, good[1])):
        assert "--labels LABELS --weights model_final.pkl" in text
    assert "--weights" not in report.render_html(*good)


def test_another_schema_is_refused(good: Record) -> None:
    with pytest.raises(DeployError, match="schema 9"):
        report.render_html(good[0], {"schema": 9, "runs": {}})


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99999999, "99.9999 %"), (0.9998, "99.9800 %"), (None, figures.NONE)],
)
def test_a_share_is_never_rounded_up_to_whole(share: float | None, text: str) -> None:
    assert figures.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.23e-5, "1.2·10⁻⁵"), (5e-4, "5·10⁻⁴"), (0.001, "0.001"), (3.17, "3.2")],
)
def test_small_numbers(value: float, text: str) -> None:
    assert figures.small(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123 ms"), (12.345, "12.3 ms"), (99.96, "100 ms"), (1190.4, "1,190 ms")],
)
def test_times(value: float, text: str) -> None:
    assert figures.milliseconds(value) == text


def test_the_head_has_time_and_size_of_a_run_that_has_them(good: Record) -> None:
    run = {**good[1]["runs"]["compare"], "call_ms": 1190.4, "batch": 2, "graph_bytes": 3_449_356}
    record = {"schema": 1, "runs": {"compare": run}}
    for text in (report.render_html(good[0], record), report.render_markdown(good[0], record)):
        for part in ("1,190 ms", "time of 2 pictures", "3.4 MB", "FP32 graph"):
            assert part in text, part
    earlier = {"schema": 1, "runs": {"compare": {**run, "call_ms": None, "graph_bytes": None}}}
    assert "FP32 graph" not in report.render_html(good[0], earlier).split("<nav")[0]


# In a real browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("which", ["good", "bad", "nasty"])
def test_the_browser_shows_it_whole(
    chromium: str, tmp_path: Path, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    page = report.render_html(*request.getfixturevalue(which))
    check_shown_whole(chromium, tmp_path, page, width, pictures=SHOWN)


@pytest.mark.browser
def test_the_browser_check_sees_planted_faults(chromium: str, tmp_path: Path, good: Record) -> None:
    page = report.render_html(*good)
    for hidden in ("", "overflow-x:auto;width:300px"):
        wide_one = f'<div style="{hidden}"><p style="width:1500px;max-width:none">wide</p></div>'
        broken = page.replace("<footer>", f"<footer>{wide_one}")
        scroll, client, *_, wide, _ = probe(chromium, tmp_path, broken, 390)
        assert (int(scroll) > int(client)) is (not hidden)
        assert ("DIV" if hidden else "P") in wide.split("+")
    unstyled = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    torn = unstyled.replace("data:image/jpeg;base64,", "data:image/jpeg;base64,AAAA", 1)
    _, _, images, shown, _, _, border = probe(chromium, tmp_path, torn, 390)
    assert int(shown) == int(images) - 1
    assert border == "none"
