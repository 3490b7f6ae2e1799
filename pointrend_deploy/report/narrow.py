"""Tables that a narrow screen shows without scrolling: each cell carries its column's name.

A table of many columns gets the class ``cards``; the style sheet then shows each of its rows as a
card on a narrow screen, with the attribute ``data-label`` above each value.
"""

from __future__ import annotations

import re
from html import escape, unescape

MOST_COLUMNS = 3
"""Number of columns that a table may have and stay a table on a narrow screen."""
_TABLE = re.compile(r"<table\b(?P<attributes>[^>]*)>(?P<inside>.*?)</table>", re.DOTALL)
_ROW = re.compile(r"<tr\b[^>]*>(.*?)</tr>", re.DOTALL)
_CELL = re.compile(r"<(t[hd])\b([^>]*)>(.*?)</\1>", re.DOTALL)


def with_labels(html: str) -> str:
    """Name the column of every cell of every table that is too wide for a narrow screen.

    Args:
        html: a page without tables inside tables, in which ``<`` and ``>`` stand only in tags.

    Returns:
        The same page with ``data-label`` on those cells and ``cards`` among their tables' classes.
    """
    return _TABLE.sub(_labelled, html)


def _labelled(table: re.Match[str]) -> str:
    attributes, inside = table["attributes"], table["inside"]
    head, mark, body = inside.rpartition("</thead>")
    names = _columns(head) if mark else []
    if len(names) <= MOST_COLUMNS:
        return table[0]
    if 'class="' in attributes:
        attributes = attributes.replace('class="', 'class="cards ', 1)
    else:
        attributes += ' class="cards"'
    body = _ROW.sub(lambda row: _labelled_row(row, names), body)
    return f"<table{attributes}>{head}{mark}{body}</table>"


def _labelled_row(row: re.Match[str], names: list[str]) -> str:
    column, out, last = 0, [], ""
    for cell in _CELL.finditer(row[1]):
        kind, attributes, text = cell.groups()
        name = names[column] if column < len(names) else ""
        column += _span(attributes, "colspan")
        if kind == "td" and name and name != last:
            attributes += f' data-label="{escape(name)}"'
        last = name
        out.append(f"<{kind}{attributes}>{text}</{kind}>")
    start, end = row.span(1)
    offset = row.start()
    return row[0][: start - offset] + "".join(out) + row[0][end - offset :]


def _columns(head: str) -> list[str]:
    """Return the name of each column; of stacked headings both, with a colon between."""
    names: list[str] = []
    covered: set[tuple[int, int]] = set()
    for number, row in enumerate(_ROW.findall(head)):
        column = 0
        for _, attributes, text in _CELL.findall(row):
            while (number, column) in covered:
                column += 1
            wide, tall = _span(attributes, "colspan"), _span(attributes, "rowspan")
            for place in range(column, column + wide):
                covered |= {(number + below, place) for below in range(tall)}
                names += [""] * (place + 1 - len(names))
                parts = (names[place], _words(text))
                names[place] = ": ".join(part for part in parts if part)
            column += wide
    return names


def _span(attributes: str, which: str) -> int:
    found = re.search(rf'\b{which}="(\d+)"', attributes)
    return int(found[1]) if found else 1


def _words(text: str) -> str:
    """Return the text of a cell in one line, without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())
