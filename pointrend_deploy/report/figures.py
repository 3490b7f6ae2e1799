"""Numbers as a reader meets them, and the one chart of the report (hand-made SVG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

NONE = "\N{EN DASH}"
"""Stands where there is no number."""
BAR, GAP, GROUP, HEIGHT, LEFT, TOP = 26, 3, 26, 150, 34, 14


def percent(share: float | None, digits: int = 4) -> str:
    """A share as a percentage, rounded down so that only an exact 1 reads 100 %."""
    if share is None:
        return NONE
    if share == 1.0:
        return "100 %"
    scale = 10**digits
    return f"{math.floor(share * 100 * scale) / scale:.{digits}f} %"


def score(value: float | None) -> str:
    """An IoU to three digits."""
    return NONE if value is None else f"{value:.3f}"


def average(value: float | None) -> str:
    """An average precision in percent, as papers give it."""
    return NONE if value is None else f"{100 * value:.1f}"


def overlap(value: float | None) -> str:
    """An IoU near 1, rounded down so that only an exact 1 reads as one."""
    return NONE if value is None else f"{math.floor(value * 1e5) / 1e5:.5f}"


def small(value: float | None) -> str:
    """A difference: two significant digits, 0 as 0, powers of ten as a reader writes them."""
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
    """A signal-to-noise ratio."""
    return NONE if value is None else f"{value:.0f} dB"


def shape(sizes: Sequence[int]) -> str:
    """A tensor's shape, with multiplication signs."""
    return " \N{MULTIPLICATION SIGN} ".join(str(size) for size in sizes)


def count(value: int) -> str:
    """A whole number with thousands marked."""
    return f"{value:,}"


def counted(value: int, what: str) -> str:
    """So many of something: ``1 picture``, ``2 pictures``."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def bar_chart(
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    title: str,
    first_colour: int = 0,
) -> str:
    """Grouped bars from 0 to 1 as an inline SVG that follows the page's colours.

    Args:
        groups: names below the axis.
        series: name and one value a group; the class ``bar<i>`` colours it.
        title: read out in place of the picture.
        first_colour: i of the first series.
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
