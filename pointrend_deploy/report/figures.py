"""Numbers as text for reports, and the chart of the report (an SVG made here)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NONE = "\N{EN DASH}"
"""Written where there is no number."""
MINUS = "\N{MINUS SIGN}"
BAR, GAP, GROUP, HEIGHT, LEFT, TOP = 26, 3, 26, 150, 34, 14


PREDICTION_NAMES = {
    "coarse": "coarse head alone",
    "reference": "PyTorch reference",
    "bundle": "this bundle",
}


@dataclass(frozen=True)
class Fact:
    """A figure in large type: its value, its name, and one line below."""

    value: str
    name: str
    note: str


def percent(share: float | None, digits: int = 4) -> str:
    """Return a share (0..1) in percent, rounded down so that only an exact 1 becomes 100 %."""
    if share is None:
        return NONE
    if share == 1.0:
        return "100 %"
    scale = 10**digits
    return f"{math.floor(share * 100 * scale) / scale:.{digits}f} %"


def score(value: float | None) -> str:
    """Return an IoU (0..1) with three digits."""
    return NONE if value is None else f"{value:.3f}"


def average(value: float | None) -> str:
    """Return an average precision (0..1) in percent with one digit, as papers give it."""
    return NONE if value is None else f"{100 * value:.1f}"


def overlap(value: float | None, digits: int = 5) -> str:
    """Return an IoU near 1, rounded down so that only an exact 1 becomes 1.00000."""
    scale = 10**digits
    return NONE if value is None else f"{math.floor(value * scale) / scale:.{digits}f}"


def points(change: float) -> str:
    """Return a change of a score (-1..1) in points with its sign: ``+0.30``, ``±0``."""
    text = f"{100 * change:+.2f}"
    return "±0" if float(text) == 0 else text.replace("-", MINUS)


def small(value: float | None) -> str:
    """Return a difference with two significant digits, such as 0, 0.012 or 1.2·10⁻⁵."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 10000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.removesuffix('.0')}·10{power}"


def decibel(value: float | None) -> str:
    """Return a signal-to-noise ratio in whole dB."""
    return NONE if value is None else f"{value:.0f} dB"


def milliseconds(value: float) -> str:
    """Return a time with three significant digits, or in whole milliseconds from 100 on."""
    return f"{value:,.0f} ms" if value >= 99.95 else f"{value:.3g} ms"


def shape(sizes: Sequence[int]) -> str:
    """Return a tensor's shape with multiplication signs between the sizes."""
    return " \N{MULTIPLICATION SIGN} ".join(str(size) for size in sizes)


def count(value: int) -> str:
    """Return a whole number with commas between thousands."""
    return f"{value:,}"


def counted(value: int, what: str) -> str:
    """Return a number with its noun: ``1 picture``, ``2 pictures``."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def plain_percent(value: float | None, digits: int = 1) -> str:
    """Return a share (0..1) in percent without the sign, for the terminal; ``-`` for None."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def right_aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return the cells of a line of the terminal, each at the right of its width."""
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def bar_chart(
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    title: str,
    first_colour: int = 0,
) -> str:
    """Draw grouped bars from 0 to 1 as an inline SVG that follows the page's colours.

    Args:
        groups: names below the axis.
        series: for each its name and one value (0..1) for each group; None draws no bar. Series i
            has the CSS class ``bar<first_colour + i>``.
        title: for screen readers.
        first_colour: number of the first series' colour.
    """
    each = len(series) * (BAR + GAP) + GROUP
    width = LEFT + each * len(groups) + 10
    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {width} {HEIGHT + 44}" '
        f'style="max-width:{width}px" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>"
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = TOP + HEIGHT * (1 - tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for place, group in enumerate(groups):
        start = LEFT + GROUP / 2 + place * each
        for index, (name, values) in enumerate(series):
            value = values[place]
            if value is None:
                continue
            x, tall = start + index * (BAR + GAP), HEIGHT * min(max(value, 0.0), 1.0)
            y = TOP + HEIGHT - tall
            parts.append(
                f'<rect class="bar{first_colour + index}" x="{x:.1f}" y="{y:.1f}" width="{BAR}" '
                f'height="{tall:.1f}"><title>{escape(name)}, {escape(group)}: {value:.3f}'
                f"</title></rect>"
                f'<text class="value" x="{x + BAR / 2:.1f}" y="{y - 3:.1f}" '
                f'text-anchor="middle">{f"{value:.2f}".removeprefix("0")}</text>'
            )
        middle = start + len(series) * (BAR + GAP) / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">'
            f"{escape(group)}</text>"
        )
    return "".join(parts) + "</svg>"
