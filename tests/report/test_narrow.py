"""Cells of wide tables carry their columns' names, and nothing else changes."""

from __future__ import annotations

import re

from pointrend_deploy.report.narrow import with_labels
from tests.report.pages import Balanced

WIDE = (
    '<p>a &lt; b</p><table class="many"><thead>'
    '<tr><th rowspan="2">picture</th><th colspan="2">mIoU</th>'
    '<th rowspan="2">first<br>&amp; last</th></tr>'
    "<tr><th>coarse</th><th>bundle</th></tr></thead>"
    '<tbody><tr><th scope="row">x</th><td class="n">1</td><td>2</td><td></td></tr>'
    '<tr><th colspan="4">group</th></tr></tbody></table>'
)


def test_each_cell_has_its_column_with_what_stands_above_it() -> None:
    page = with_labels(WIDE)
    cells = [attributes for tag, attributes in Balanced(page).tags if tag == "td"]
    assert [cell.get("data-label") for cell in cells] == [
        "mIoU: coarse",
        "mIoU: bundle",
        "first & last",
    ]
    assert cells[0]["class"] == "n"
    assert '<table class="cards many">' in page


def test_only_the_labels_and_the_class_are_added() -> None:
    page = with_labels(WIDE)
    assert re.sub(r' data-label="[^"]*"|cards ', "", page) == WIDE


def test_a_heading_over_two_columns_is_said_once() -> None:
    head = '<table><thead><tr><th>stage</th><th colspan="2">fp16</th><th>x</th></tr></thead><tbody>'
    page = with_labels(head + "<tr><th>a</th><td>1</td><td>|||</td><td>y</td></tr></tbody></table>")
    cells = [attributes for tag, attributes in Balanced(page).tags if tag == "td"]
    assert [cell.get("data-label") for cell in cells] == ["fp16", None, "x"]


def test_narrow_tables_and_tables_without_a_head_stay_as_they_are() -> None:
    narrow = "<table><thead><tr><th>a</th><th>b</th></tr></thead>"
    narrow += "<tbody><tr><td>1</td></tr></tbody></table>"
    headless = "<table><tbody><tr><td>1</td><td>2</td><td>3</td><td>4</td></tr></tbody></table>"
    assert with_labels(narrow + headless) == narrow + headless
