"""The section on precision, in HTML, Markdown and the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pointrend_deploy.parity.gates import drop_gates
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.precisions import MatchFigures, PrecisionTable, StageNoise
from pointrend_deploy.report import report
from pointrend_deploy.report.figures import MINUS, percent
from pointrend_deploy.report.precision_view import column_status, entry_sentence, status_of, view
from pointrend_deploy.report.terminal import precision_lines
from pointrend_deploy.report.verdict import verdict
from tests.report import example_instance_report, example_precisions
from tests.report.example_precisions import engines, instance, noise, semantic
from tests.report.example_report import NASTY, make
from tests.report.pages import (
    Balanced,
    Record,
    check_shown_whole,
    check_tables,
    visible,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return example_instance_report.make(tmp_path_factory.mktemp("things"))


def with_table(record: Record, table: PrecisionTable) -> Record:
    manifest, parity, gallery = record
    return manifest, {**parity, "precisions": msgspec.to_builtins(table)}, gallery


def test_a_record_with_a_table_comes_back_and_one_without_still_reads(plain: Record) -> None:
    parity = results.decode(msgspec.json.encode(plain[1]))
    assert parity.precisions is None
    full = msgspec.structs.replace(parity, precisions=semantic())
    assert results.decode(results.encode(full)) == full
    run = parity.runs["compare"]
    assert results.merged(full, "compare", run).precisions == semantic(), "kept"
    assert results.merged(full, "compare", run, instance()).precisions == instance(), "replaced"
    assert "precision" not in visible(report.render_html(*plain)).lower().split("versions")[0]


def test_a_passed_table_has_every_figure(plain: Record) -> None:
    record = with_table(plain, semantic())
    words, markdown = visible(report.render_html(*record)), report.render_markdown(*record)
    assert "✓ Passed" in words and "Precision: ✓ passed" in words
    assert "fp16 and int8: ONNX Runtime simulation on the CPU; not an engine." in words
    for text in (
        *("76.54", "76.50", f"{MINUS}0.04", "76.24", f"{MINUS}0.30", "54.32", "67.89"),
        *("99.9500 %", "99.80 %", "93.00 %", "0.900", "118", "98.70 %", "entropy, 32 pictures"),
        *("190.7 MB", "48.1 MB", "101.0 MB", "rtx-sm86-int8-plugin", "524,288", "a predictor"),
        *("0.30 points", "≤ 0.50 points", "66 dB", "36 dB"),
    ):
        assert text in words, text
        assert text in markdown, text
    lines = "\n".join(precision_lines(semantic()))
    for text in (
        "76.54",
        f"76.24 {MINUS}0.30",
        "93.00 %",
        "entropy, 32 pictures",
        "passed: fp16, int8",
    ):
        assert text in lines, text
    for heading in ("Q/DQ", "Simulation", "Calibration", "Point overlap"):
        assert heading in words.split("What the words mean")[-1]
    assert "keeps every limit of its scores on 36 pictures" in words


def test_the_stage_where_the_error_enters_is_marked_and_no_other(plain: Record) -> None:
    shown = view(semantic())
    at = {row.stage: row.enters for row in shown.noise if any(row.enters)}
    assert at == {"backbone.bottom_up.blocks.4": (False, True)}
    assert shown.entries == (
        "fp16: no stage falls below 30 dB; least 50 dB",
        "int8: the error enters at backbone.bottom_up.blocks.4 (28 dB; 30 dB at the stage before "
        "it)",
    )
    html = report.render_html(*with_table(plain, semantic()))
    marked = re.findall(r"<tr>(?:(?!</tr>).)*◀ enters here(?:(?!</tr>).)*</tr>", html)
    assert len(marked) == 1 and "blocks.4" in marked[0]
    bold = [
        r
        for r in report.render_markdown(*with_table(plain, semantic())).splitlines()
        if "**28 dB**" in r
    ]
    assert len(bold) == 1 and "blocks.4" in bold[0]


def test_a_planted_error_moves_the_mark() -> None:
    table = semantic()
    spoilt = [*noise("fp16")]
    spoilt[2] = msgspec.structs.replace(spoilt[2], snr_db=12.0, noise=0.25)
    fp16 = msgspec.structs.replace(table.columns[1], stages=tuple(spoilt))
    table = msgspec.structs.replace(table, columns=(table.columns[0], fp16, table.columns[2]))
    assert view(table).entries[0] == (
        "fp16: the error enters at backbone.bottom_up.blocks.1 (12 dB; 64 dB at the stage before "
        "it)"
    )


def test_the_sentence_on_stages_says_what_was_compared() -> None:
    def said(*stages: StageNoise) -> str:
        column = msgspec.structs.replace(semantic().columns[1], stages=stages)
        return entry_sentence(column).removeprefix("fp16: ")

    equal = StageNoise(stage="a", rms=1.0, noise=0.0)
    lost = StageNoise(stage="b", problem="this graph has no such value")
    near = StageNoise(stage="c", rms=0.1, noise=0.1, snr_db=0.0, near_zero=True)
    clear = StageNoise(stage="d", rms=1.0, noise=0.01, snr_db=40.0)
    low = StageNoise(stage="e", rms=1.0, noise=0.1, snr_db=20.0)
    assert said(equal) == "every stage equals the FP32 graph's"
    assert said(equal, lost) == (
        "every stage equals the FP32 graph's; 1 stage could not be compared"
    )
    assert said(lost) == "no stage could be compared"
    assert said(equal, near).endswith(", except logits that are near zero by choice")
    assert said(clear, lost) == (
        "no stage falls below 30 dB; least 40 dB; 1 stage could not be compared"
    )
    assert said(clear, near, low) == ("the error enters at e (20 dB; 40 dB at the stage before it)")
    assert said(equal, low) == ("the error enters at e (20 dB; the stage before it equals fp32's)")


def test_a_drop_fails_the_report_and_names_the_figure(plain: Record) -> None:
    record = with_table(plain, semantic(lost=0.02))
    words = visible(report.render_html(*record))
    assert "✗ Failed" in words and "loses more than its limits allow" in words
    assert "int8 in ONNX Runtime's simulation fails: drop of mIoU, drop of boundary IoU" in words
    assert "2 of 2 gates FAILED" in words
    assert report.render_markdown(*record).startswith("# tiny: failed")
    lines = precision_lines(semantic(lost=0.02))
    assert "failed: int8, drop of mIoU: 2.00 points, limit ≤ 0.50 points" in lines
    assert lines[-1] == "FAILED: int8 beside fp32"


def few_alike(matched: int, only_here: int, **fields: Any) -> PrecisionTable:
    """INT8 keeps its limits; its detections are 404 less those that are not matched."""
    table = instance()
    found = MatchFigures(
        matched=matched,
        only_here=only_here,
        only_there=404 - matched,
        box_px=61.25,
        box_median_px=2.0,
        mask_iou_mean=0.889,
        mask_iou_min=0.0847,
        box_px_at="scenes/0027.png",
        mask_iou_min_at="scenes/0018.png",
    )
    column = msgspec.structs.replace(table.columns[2], found_fp32=found, **fields)
    return msgspec.structs.replace(table, columns=(*table.columns[:2], column))


@pytest.mark.parametrize(
    ("matched", "only_here", "status"),
    [
        (362, 37, "warning"),
        (384, 0, "passed"),  # 95.05 % found again
        (383, 0, "warning"),  # 94.8 %
        (404, 21, "passed"),  # 95.06 % of its own are fp32's
        (404, 22, "warning"),  # 94.8 %
    ],
)
def test_other_answers_than_fp32s_are_a_warning(
    things: Record, matched: int, only_here: int, status: str
) -> None:
    table = few_alike(matched, only_here)
    assert bool(table), "a warning is no failed gate"
    assert status_of(table) == status
    assert [column_status(column) for column in table.columns] == ["passed", "passed", status]
    record = with_table(things, table)
    assert verdict(results.decode(msgspec.json.encode(record[1]))).status == status
    words, markdown = visible(report.render_html(*record)), report.render_markdown(*record)
    head = words.split("Running it")[0]
    assert ("✓ Passed" in head) is (status == "passed")
    assert ("⚠ Warning" in head) is (status == "warning")
    assert markdown.startswith(f"# tiny\\_instance: {status}")
    last = precision_lines(table)
    assert [line for line in last if line.startswith("passed:")] == [
        "passed: fp16, int8 beside fp32" if status == "passed" else "passed: fp16 beside fp32"
    ]
    assert any(line.startswith("WARNING: int8: ") for line in last) is (status == "warning")


def test_a_warning_names_the_worst_cases_and_their_pictures(things: Record) -> None:
    table = few_alike(362, 37)
    record = with_table(things, table)
    head = visible(report.render_html(*record)).split("Running it")[0]
    share = "the share of fp32's detections found again is 89.6 %, below 95 %"
    for place in (head, report.render_markdown(*record), "\n".join(precision_lines(table))):
        assert share in place
        for text in (
            "362 of 404 detections of fp32 matched and 37 more found",
            "largest difference of a box 61 px in scenes/0027.png",
            "least IoU of a mask 0.084 in scenes/0018.png",
        ):
            assert text in place, text


def test_a_failed_gate_goes_before_a_warning(things: Record) -> None:
    gates = drop_gates("int8", {"mask AP": 0.5}, {"mask AP": 0.4})
    table = few_alike(362, 37, gates=gates)
    assert status_of(table) == "failed"
    record = with_table(things, table)
    assert "✗ Failed" in visible(report.render_html(*record))
    assert precision_lines(table)[-1] == "FAILED: int8 beside fp32"
    assert not any(line.startswith("WARNING") for line in precision_lines(table))


@pytest.mark.parametrize(("same", "status"), [(0.9501, "passed"), (0.9499, "warning")])
def test_labels_have_the_same_limit(plain: Record, same: float, status: str) -> None:
    table = semantic(agrees_fp32=same, agrees_least=0.7123, agrees_least_at="scene 3")
    assert status_of(table) == status
    head = visible(report.render_html(*with_table(plain, table))).split("Running it")[0]
    assert f"{percent(same, 3)} of the labels equal fp32's, least 71.230 % in scene 3" in head
    assert ("the share of labels equal to fp32's is 94.9 %" in head) is (status == "warning")


def interval(score: str, low: float, change: float, high: float) -> ScoreInterval:
    return ScoreInterval(
        score=score,
        value=0.5 + change,
        low=0.4,
        high=0.6,
        change=change,
        change_low=low,
        change_high=high,
        pictures=36,
        draws=1000,
    )


def test_no_loss_is_only_what_was_seen(plain: Record) -> None:
    rows = (
        interval("mIoU", -0.004, 0.001, 0.005),
        interval("boundary IoU, 2 px", -0.012, -0.008, -0.002),
        interval("boundary IoU, 2 %", 0.001, 0.002, 0.003),
    )
    table = semantic(intervals=rows)
    said = (
        f"no loss seen on 36 pictures: mIoU +0.10 ({MINUS}0.40 to +0.50); "
        f"loss seen on 36 pictures: boundary IoU, 2 px {MINUS}0.80 ({MINUS}1.20 to {MINUS}0.20); "
        "gain seen on 36 pictures: boundary IoU, 2 % +0.20 (+0.10 to +0.30)"
    )
    beyond = "the interval of boundary IoU, 2 px reaches a loss beyond the limit"
    record = with_table(plain, table)
    words, markdown = visible(report.render_html(*record)), report.render_markdown(*record)
    lines = "\n".join(precision_lines(table))
    for place in (words, markdown, lines):
        assert said in place
        assert beyond in place.replace("The interval", "the interval")
    assert f"76.24 {MINUS}0.30 ({MINUS}0.40 to +0.50)" in lines
    assert f"76.24 ({MINUS}0.30; {MINUS}0.40 to +0.50)" in markdown
    assert "no loss" not in (words + markdown + lines).replace("no loss seen on 36 pictures", "")
    check_tables(markdown)


def test_without_intervals_the_reason_is_said(plain: Record) -> None:
    few = msgspec.structs.replace(semantic(), pictures=9)
    for table, why in ((few, "9 pictures cannot show"), (semantic(), "written without them")):
        record = with_table(plain, table)
        assert why in visible(report.render_html(*record)).split("Running it")[0]
        assert any(why in line for line in precision_lines(table))
    none = precision_lines(semantic(truth=False))
    assert not any("interval" in line for line in none)


def test_without_a_truth_it_is_neither_passed_nor_failed(plain: Record) -> None:
    record = with_table(plain, semantic(truth=False))
    words = visible(report.render_html(*record))
    assert "Precision: not gated" in words
    assert "int8: its accuracy is not gated" in words
    assert "int8 in ONNX Runtime's simulation was compared without limits on its accuracy" in words
    assert "Against the truth percent" not in words
    assert not [
        line for line in precision_lines(semantic(truth=False)) if line.startswith("passed")
    ]
    assert verdict(results.decode(msgspec.json.encode(record[1]))).status == "passed"


def test_engines_are_not_called_a_simulation(plain: Record) -> None:
    record = with_table(plain, engines(semantic()))
    words = visible(report.render_html(*record))
    section = words.split("Precision: ")[1].split("Verification at export")[0]
    assert "imulation" not in section
    assert "orin-int8" in section and "engines give outputs only" in section
    assert "Where the error enters" not in section
    assert "step 1" not in section


def test_a_graph_that_changed_since_is_told(plain: Record) -> None:
    same = {**plain[0]["files"], **{f"model.{p}.onnx": "d4" * 32 for p in ("fp32", "fp16", "int8")}}
    manifest = {**plain[0], "files": same}
    record = with_table((manifest, *plain[1:]), semantic())
    assert "another one today" not in visible(report.render_html(*record))
    manifest["files"]["model.int8.onnx"] = "e5" * 32
    assert "int8: the bundle's graph is another one today" in visible(report.render_html(*record))


def test_an_instance_table_has_detections_and_average_precision(things: Record) -> None:
    record = with_table(things, instance())
    words, markdown = visible(report.render_html(*record)), report.render_markdown(*record)
    for text in (
        "43.21",
        "43.26",
        "+0.05",
        "43.01",
        f"{MINUS}0.20",
        "404",
        "3, 2",
        "0.25",
        "0.99100",
        "0.71000",
    ):
        assert text in words, text
        assert text in markdown, text
    assert "Signal to noise, 20 log" in words


def nasty() -> PrecisionTable:
    return semantic(
        stages=noise("int8", f"{NASTY}."),
        left_out={NASTY * 3: "x" * 200, "</table></style>": NASTY},
        engines={NASTY: None, "e" * 90: 5_000_000},
        unreadable=(NASTY,),
    )


def test_names_cannot_break_the_page(plain: Record) -> None:
    record = with_table(plain, nasty())
    html = report.render_html(*record)
    Balanced(html)
    assert "<script" not in html and html.count("</style>") == 1
    markdown = report.render_markdown(*record)
    check_tables(markdown)
    assert not [line for line in markdown.splitlines() if line[:1] == "|" and "<script" in line]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("which", ["semantic", "failed", "instance", "nasty"])
def test_the_browser_shows_it_whole(
    chromium: str, tmp_path: Path, plain: Record, things: Record, which: str, width: int
) -> None:
    made = {
        "semantic": (plain, example_precisions.semantic()),
        "failed": (plain, example_precisions.semantic(lost=0.02)),
        "instance": (things, example_precisions.instance()),
        "nasty": (plain, nasty()),
    }
    page = report.render_html(*with_table(*made[which]))
    check_shown_whole(chromium, tmp_path, page, width)
