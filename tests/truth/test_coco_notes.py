"""Annotations that cannot all be meant: left out and said, or refused where scores mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.truth.annotations import InstanceTruth
from pointrend_deploy.truth.coco import read_coco
from tests.fixtures.instance_data import Thing, drawn, recipe, scene, table, written

Table = dict[str, Any]
HW = (96, 128)
SQUARE = [30, 20, 90, 20, 90, 40, 30, 40]
NAN = float("nan")


def rectangle(label: int, top: int, left: int, height: int, width: int) -> Thing:
    mask = np.zeros(HW, np.bool_)
    mask[top : top + height, left : left + width] = True
    return Thing(label, mask)


def scenes() -> list[list[Thing]]:
    """Three pictures with two, two and one object of all classes, away from the corner."""
    return [
        [rectangle(0, 10, 20, 30, 40), rectangle(1, 50, 60, 20, 30)],
        [rectangle(2, 40, 30, 40, 60), rectangle(1, 12, 70, 25, 20)],
        [rectangle(0, 30, 40, 20, 20)],
    ]


def read(tmp_path: Path, spoil: Callable[[Table], None] = lambda content: None) -> InstanceTruth:
    path, images = written(tmp_path, scenes())
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))  # NaN and Infinity as Python writes them
    return read_coco(path, images, recipe())


def test_a_sound_set_has_no_notes(tmp_path: Path) -> None:
    assert read(tmp_path).notes == ()


# --- polygons -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        ([1, 2, 3, 4], "4 numbers, fewer than three points"),
        ([7], "1 number, fewer than three points"),
        ([], "0 numbers, fewer than three points"),
        ([1, 2, 3, 4, 5, 6, 7], "7 numbers, an odd count"),
        ([1, 2, 3, 4, NAN, 6], "a coordinate is not finite"),
        ([1, 2, 3, 4, float("inf"), 6], "a coordinate is not finite"),
        ([1, 2, 3, 4, None, 6], "a coordinate is not finite"),
        ([1, 2, 3, 4, 5, 1e9], "far outside the picture of 96x128"),
        ([130, 20, 180, 20, 180, 40], "outside the picture of 96x128"),
        ([30, -40, 90, -40, 90, -1], "outside the picture of 96x128"),
    ],
)
def test_one_bad_polygon_is_left_out_and_named(
    tmp_path: Path, polygon: list[Any], reason: str
) -> None:
    def alone(content: Table) -> None:
        content["annotations"][1]["segmentation"] = [polygon]

    truth = read(tmp_path / "alone", alone)
    assert len(truth.objects) == 4 and all(
        each.label != 1 or each.image_id == 11 for each in truth.objects
    )
    assert truth.notes == (
        f"1 polygon left out: annotation 1 of 000.png ({reason})",
        "1 of 5 annotations left out, without a usable mask: annotation 1 of 000.png; what is "
        "found there counts as false",
    )

    def beside(content: Table) -> None:
        content["annotations"][1].update(segmentation=[polygon, SQUARE], bbox=[30, 20, 60, 20])
        del content["annotations"][1]["area"]

    truth = read(tmp_path / "beside", beside)
    assert len(truth.objects) == 5 and truth.objects[1].area == 1200
    assert truth.objects[1].segmentation == [SQUARE]
    assert truth.notes == (f"1 polygon left out: annotation 1 of 000.png ({reason})",)


@pytest.mark.parametrize("empty", [[], None])
def test_an_annotation_without_a_mask_is_left_out(tmp_path: Path, empty: Any) -> None:
    truth = read(tmp_path, lambda content: content["annotations"][4].update(segmentation=empty))
    assert [each.image_id for each in truth.objects] == [10, 10, 11, 11]
    assert (
        "1 of 5 annotations left out, without a usable mask: annotation 4 of 002.png"
        in (truth.notes[0])
    )


def test_a_polygon_partly_outside_is_kept(tmp_path: Path) -> None:
    outline = [-20, -20, 50, -20, 50, 40, -20, 40]

    def spoil(content: Table) -> None:
        content["annotations"][0].update(segmentation=[outline], bbox=[0, 0, 50, 40], area=2000)

    truth = read(tmp_path, spoil)
    assert truth.notes == () and truth.objects[0].segmentation == [outline]


def test_many_are_counted_and_the_first_named(tmp_path: Path) -> None:
    many = [[rectangle(i % 3, 10, 20, 30, 40)] for i in range(9)]
    content = table(many)
    for entry in content["annotations"][:8]:
        entry["segmentation"] = [[1, 2]]
    path, images = written(tmp_path, many, content)
    notes = read_coco(path, images, recipe()).notes
    assert notes[0].startswith("8 polygons left out: annotation 0 of 000.png (2 numbers")
    assert notes[0].endswith("and 3 more") and notes[1].startswith("8 of 9 annotations left out")


def every(**changes: Any) -> Callable[[Table], None]:
    def apply(content: Table) -> None:
        for entry in content["annotations"]:
            entry.update(changes)

    return apply


def as_shares(content: Table) -> None:
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        sizes = [HW[1], HW[0]] * 4
        entry["segmentation"] = [[v / size for v, size in zip(corners, sizes, strict=True)]]


def as_corners(content: Table) -> None:
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (every(segmentation=[]), "no annotation of .* has a usable mask: annotation 0 of 000.png"),
        (every(segmentation=[[1, 2]]), r"no annotation .* mask: annotation 0 of 000.png \(2 num"),
        (every(iscrowd=1), "all 5 objects of .* are crowds: there is none to score against"),
        (as_shares, "no coordinate of the 5 polygons of .* is above 1"),
        (
            as_corners,
            "has boxes written as two corners: 5 of 5 boxes fit their masks better as x1, y1, x2, "
            "y2 than as x, y, width, height",
        ),
    ],
)
def test_a_set_that_cannot_be_scored_is_refused(
    tmp_path: Path, spoil: Callable[[Table], None], words: str
) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        read(tmp_path, spoil)
    assert caught.value.hint


# --- boxes, areas, classes ----------------------------------------------------------------------


def first(**changes: Any) -> Callable[[Table], None]:
    return lambda content: content["annotations"][0].update(changes)


def without(label: int) -> Callable[[Table], None]:
    def apply(content: Table) -> None:
        number = recipe().category_ids[label]
        kept = [each for each in content["annotations"] if each["category_id"] != number]
        content["annotations"] = kept

    return apply


def only_first_picture(content: Table) -> None:
    content["annotations"] = content["annotations"][:2]


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (
            first(bbox=[20, 10, 60, 40]),
            None,  # loose, but the box of that object: its overlap is one half
        ),
        (
            first(bbox=[20, 10, 90, 70]),
            "the boxes of 1 of 5 objects do not fit their masks (overlap below 0.5): annotation 0 "
            "of 000.png",
        ),
        (
            first(area=12 * 1200),
            "the area of 1 of 5 objects is less than half or more than twice the mask's: "
            "annotation 0 of 000.png; small, medium and large go by it",
        ),
        (
            first(segmentation=[[20.1, 20.1, 20.2, 20.1, 20.2, 20.2]]),
            "the masks of 1 of 5 objects cover no pixel: annotation 0 of 000.png; no mask that is "
            "found can match them",
        ),
        (without(2), "1 of 3 classes without an object in the whole set: bar"),
        (
            only_first_picture,
            "2 of 3 pictures without an object: 001.png, 002.png; what is found there counts as "
            "false",
        ),
    ],
)
def test_what_is_suspicious_is_said_in_a_line(
    tmp_path: Path, spoil: Callable[[Table], None], note: str | None
) -> None:
    notes = read(tmp_path, spoil).notes
    assert notes[-1:] == (() if note is None else (note,))
    assert all("\n" not in each for each in notes)


def test_boxes_at_the_corner_say_nothing_and_small_ones_may_be_two_pixels_off(
    tmp_path: Path,
) -> None:
    things = [rectangle(0, 0, 0, 30, 40), rectangle(1, 50, 60, 3, 3), rectangle(2, 20, 70, 20, 30)]
    content = table([things])
    content["annotations"][1]["bbox"] = [61.5, 51.5, 2, 2]
    path, images = written(tmp_path, [things], content)
    assert read_coco(path, images, recipe()).notes == ()


def test_one_box_of_corners_is_a_slip_and_most_are_a_habit(tmp_path: Path) -> None:
    def corners(content: Table, count: int) -> None:
        head = {"annotations": content["annotations"][:count]}
        as_corners(head)

    notes = read(tmp_path / "one", lambda content: corners(content, 2)).notes
    assert notes[0].startswith("the boxes of 1 of 5 objects do not fit")
    with pytest.raises(DeployError, match="3 of 5 boxes fit their masks better"):
        read(tmp_path / "most", lambda content: corners(content, 3))


def test_generated_scenes_have_sound_boxes(tmp_path: Path) -> None:
    """The check takes no offence at round objects, crowds and objects that overlap."""
    crowd = Thing(1, drawn(1, HW, 80, 100, 14).mask, crowd=True)
    many = [[*scene(seed, count=6), crowd] for seed in range(8)]
    path, images = written(tmp_path, many)
    assert read_coco(path, images, recipe()).notes == ()
