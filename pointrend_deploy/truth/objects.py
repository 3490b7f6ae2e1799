"""Checks of the true objects of a set, beyond each annotation by itself.

What makes a score meaningless is refused; what is merely suspicious becomes a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.truth.annotations import (
    HW,
    TruthObject,
    TruthPicture,
    area_of,
    box_of,
    listed,
)
from pointrend_deploy.wording import count_of

Corners = tuple[float, float, float, float]
LEAST_IOU: Final = 0.5
"""A box fits its mask where it overlaps the box around the mask by this much."""
NEAR_PX: Final = 2.0
"""A box whose edges are all this near to the mask's fits it too, however small the object is."""


@dataclass(frozen=True)
class Annotated:
    """An object of an annotation file, beside what the file says about its mask.

    Attributes:
        name: of the annotation.
        thing: the object.
        hw: height and width of its picture.
        box_given, area_given: whether they come from the file, not from the mask.
    """

    name: str
    thing: TruthObject
    hw: HW
    box_given: bool
    area_given: bool


def set_notes(
    pictures: Sequence[TruthPicture],
    objects: Sequence[TruthObject],
    recipe: InstanceRecipe,
    classes_left_out: Sequence[str],
    where: str,
) -> tuple[str, ...]:
    """Check the objects of a set as a whole.

    Args:
        pictures: of the set.
        objects: of all pictures, at least one.
        recipe: has the classes' names.
        classes_left_out: names of classes that the set does not list.
        where: the annotations, for messages.

    Returns:
        A line for everything that is suspicious.

    Raises:
        DeployError: every object is a crowd.
    """
    single = [each for each in objects if not each.crowd]
    if not single:
        raise DeployError(
            f"all {count_of(len(objects), 'object')} of {where} are crowds: there is none to "
            "score against",
            "detections in a crowd count neither for nor against; iscrowd is 0 for single objects",
        )
    notes = []
    shown = {each.label for each in single}
    names = recipe.classes.names
    absent = [
        name
        for label, name in enumerate(names)
        if label not in shown and name not in classes_left_out
    ]
    if absent:
        notes.append(
            f"{len(absent)} of {count_of(len(names), 'class', 'classes')} without an object in "
            f"the whole set: {listed(absent)}"
        )
    occupied = {each.image_id for each in objects}
    bare = [each.name for each in pictures if each.image_id not in occupied]
    if len(bare) > len(pictures) / 2:
        notes.append(
            f"{len(bare)} of {count_of(len(pictures), 'picture')} without an object: "
            f"{listed(bare)}; what is found there counts as false"
        )
    return tuple(notes)


def mask_notes(annotated: Sequence[Annotated], where: str) -> tuple[str, ...]:
    """Hold the boxes and areas of annotations against their masks.

    Args:
        annotated: objects with masks.
        where: the annotations, for messages.

    Returns:
        A line for boxes, areas and masks that cannot all be right.

    Raises:
        DeployError: more boxes fit their masks better as two corners, x1, y1, x2, y2, than as
            x, y, width, height. Boxes that mean the same either way are not counted.
    """
    single = [each for each in annotated if not each.thing.crowd]
    empty: list[str] = []
    misfits: list[str] = []
    areas: list[str] = []
    as_written = as_corners = 0
    for each in single:
        area = area_of(each.thing.segmentation, each.hw)
        if not area:
            empty.append(each.name)
            continue
        if each.area_given and not area / 2 <= each.thing.area <= 2 * area:
            areas.append(each.name)
        if not each.box_given:
            continue
        around = _corners(box_of(each.thing.segmentation, each.hw))
        written = _corners(each.thing.box)
        own, other = _overlap(written, around), _overlap(each.thing.box, around)
        as_written += own > other
        as_corners += other > own and other >= LEAST_IOU
        if own < LEAST_IOU and not _near(written, around):
            misfits.append(each.name)
    if as_corners > as_written:
        raise DeployError(
            f"{where} has boxes written as two corners: {as_corners} of "
            f"{count_of(len(single), 'box', 'boxes')} fit their masks better as x1, y1, x2, y2 "
            "than as x, y, width, height",
            "COCO's bbox is x, y, width, height; leave bbox out to have it made from the mask",
        )
    total = len(single)
    notes = []
    if misfits:
        notes.append(
            f"the boxes of {len(misfits)} of {count_of(total, 'object')} do not fit their masks "
            f"(overlap below {LEAST_IOU}): {listed(misfits)}"
        )
    if areas:
        notes.append(
            f"the area of {len(areas)} of {count_of(total, 'object')} is less than half or more "
            f"than twice the mask's: {listed(areas)}; small, medium and large go by it"
        )
    if empty:
        notes.append(
            f"the masks of {len(empty)} of {count_of(total, 'object')} cover no pixel: "
            f"{listed(empty)}; no mask that is found can match them"
        )
    return tuple(notes)


def _corners(box: Corners) -> Corners:
    x, y, width, height = box
    return x, y, x + width, y + height


def _near(one: Corners, other: Corners) -> bool:
    return all(abs(a - b) <= NEAR_PX for a, b in zip(one, other, strict=True))


def _overlap(one: Corners, other: Corners) -> float:
    """Return the IoU of two boxes of two corners each; 0 for one whose corners are exchanged."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both)
