"""The polygons of COCO annotations: which are left out, and what is said of them.

detectron2 leaves out polygons of fewer than three points or of an odd number of coordinates, and
objects that have no other (data/datasets/coco.py, load_coco_json). The same is done here, and with
polygons that are not finite or do not touch the picture too, of which no mask can be made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pointrend_deploy.truth.annotations import HW, listed
from pointrend_deploy.wording import count_of

Polygon = list[float]


@dataclass
class LeftOut:
    """What a set's annotations lose, by name of the annotation.

    Attributes:
        polygons: each with the reason.
        objects: those without any usable polygon.
    """

    polygons: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    def notes(self, total: int) -> tuple[str, ...]:
        """Say in a line each what was left out.

        Args:
            total: number of annotations of the set.
        """
        notes = []
        if self.polygons:
            notes.append(
                f"{count_of(len(self.polygons), 'polygon')} left out: {listed(self.polygons)}"
            )
        if self.objects:
            notes.append(
                f"{len(self.objects)} of {count_of(total, 'annotation')} left out, without a "
                f"usable mask: {listed(self.objects)}; what is found there counts as false"
            )
        return tuple(notes)


def usable_polygons(
    polygons: Sequence[Sequence[float | None]], hw: HW, name: str, left_out: LeftOut
) -> list[Polygon]:
    """Return the polygons that a mask can be made of.

    Args:
        polygons: x, y, x, y, ... in pixels each.
        hw: height and width of the picture.
        name: of the annotation.
        left_out: gets what is not returned.
    """
    usable: list[Polygon] = []
    for points in polygons:
        numbers = [value for value in points if value is not None and math.isfinite(value)]
        problem = _problem(numbers, len(points), hw)
        if problem:
            left_out.polygons.append(f"{name} ({problem})")
        else:
            usable.append(numbers)
    if not usable:
        left_out.objects.append(name)
    return usable


def _problem(numbers: Polygon, length: int, hw: HW) -> str:
    """Say why no mask can be made of a polygon of ``length`` values; empty where one can."""
    if length < 6:
        return f"{count_of(length, 'number')}, fewer than three points"
    if length % 2:
        return f"{length} numbers, an odd count"
    if len(numbers) < length:
        return "a coordinate is not finite"
    height, width = hw
    x, y = numbers[::2], numbers[1::2]
    low, high = -max(hw), 2 * max(hw)
    if not low <= min(numbers) <= max(numbers) <= high:
        return f"far outside the picture of {height}x{width}"
    if max(x) <= 0 or max(y) <= 0 or min(x) >= width or min(y) >= height:
        return f"outside the picture of {height}x{width}"
    return ""


def are_shares(polygons: Sequence[Sequence[float]]) -> bool:
    """Whether no coordinate of any polygon is above 1, as in shares of a picture's sides."""
    return bool(polygons) and all(max(points) <= 1 for points in polygons)
