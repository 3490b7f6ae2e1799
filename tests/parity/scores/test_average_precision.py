"""Average precision on cases one can work out by hand, so that a mistake in the wiring shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.record.detections import AccuracyRow
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.truth.annotations import InstanceTruth, TruthObject, TruthPicture
from tests.fixtures.instance_data import (
    Thing,
    drawn,
    found,
    recipe,
    run_lengths,
    scene,
    uncompressed,
)

HW = (96, 128)


def truth(scenes: list[list[Thing]], left_out: tuple[str, ...] = ()) -> InstanceTruth:
    pictures = tuple(
        TruthPicture(7 * n + 3, f"{n}", Path(f"{n}.png"), HW) for n in range(len(scenes))
    )
    objects = []
    for picture, things in zip(pictures, scenes, strict=True):
        for thing in things:
            x1, y1, x2, y2 = thing.box
            objects.append(
                TruthObject(
                    picture.image_id,
                    thing.label,
                    (x1, y1, x2 - x1, y2 - y1),
                    float(thing.mask.sum()),
                    thing.crowd,
                    uncompressed(thing.mask) if thing.crowd else run_lengths(thing.mask),
                )
            )
    return InstanceTruth("made", pictures, tuple(objects), left_out)


def scored(
    scenes: list[list[Thing]], predicted: list[Instances], left_out: tuple[str, ...] = ()
) -> dict[str, AccuracyRow]:
    known = truth(scenes, left_out)
    scorer = Scorer(known, recipe())
    for picture, instances in zip(known.pictures, predicted, strict=True):
        scorer.add(picture.image_id, {"bundle": instances})
    return {row.measure: row for row in scorer.rows(("bundle",))}


def square(y: int, x: int, side: int, label: int = 1) -> Thing:
    mask = np.zeros(HW, np.bool_)
    mask[y : y + side, x : x + side] = True
    return Thing(label, mask)


def test_perfect_predictions_have_ap_1_by_every_measure() -> None:
    scenes = [scene(seed) for seed in range(5)]
    rows = scored(scenes, [found(things) for things in scenes])
    assert list(rows) == ["box", "mask", "boundary"]
    for row in rows.values():
        assert (row.ap, row.ap50, row.ap75) == pytest.approx((1, 1, 1))
        assert {each.name: each.ap for each in row.classes} == pytest.approx(
            {"disc": 1.0, "square": 1.0, "bar": 1.0}
        )


def test_sizes_are_told_apart_by_area() -> None:
    """A square of 20 (small) found, one of 50 (medium) missed, none above 96² anywhere."""
    small, medium = square(4, 4, 20), square(30, 60, 50)
    rows = scored([[small, medium]], [found([small])])
    for row in rows.values():
        assert row.small == pytest.approx(1)
        assert row.medium == pytest.approx(0)
        assert row.large is None
        # half of the objects found without a mistake: recalls 0 to 0.5 of 0 to 1 in 101 steps
        assert row.ap == pytest.approx(51 / 101)


def test_a_shifted_square_counts_up_to_its_iou() -> None:
    """40 x 40 shifted by 5: IoU 35/45 = 0.78, right at 0.50 .. 0.75 and wrong at 0.80 .. 0.95."""
    rows = scored([[square(20, 20, 40)]], [found([square(20, 25, 40)])])
    for measure in ("box", "mask"):
        assert rows[measure].ap == pytest.approx(0.6)
        assert (rows[measure].ap50, rows[measure].ap75) == pytest.approx((1, 1))
    # bands 3 px wide (2 % of 160), 444 pixels each: six rows share 35 columns, the others none
    assert 210 / (2 * 444 - 210) < 0.5
    assert rows["boundary"].ap == pytest.approx(0)


def test_boundary_ap_sees_what_mask_ap_does_not() -> None:
    """A square of 60 eaten by 2 pixels all around: mask IoU 0.87, boundary IoU far below."""
    rows = scored([[square(10, 10, 60)]], [found([square(12, 12, 56)])])
    assert rows["mask"].ap == pytest.approx(0.8)  # 56² / 60² = 0.871: right up to 0.85
    both = 4 * 1 * (56 - 1)  # the outer ring of the smaller square is within 3 px of the larger's
    union = (60**2 - 54**2) + (56**2 - 50**2) - both
    assert both / union < 0.5
    assert rows["boundary"].ap == pytest.approx(0)


def test_a_false_positive_above_halves_precision_and_one_below_does_not() -> None:
    thing, other = square(10, 10, 30), square(60, 90, 30)
    below = scored([[thing]], [found([thing, other], [0.9, 0.1])])
    above = scored([[thing]], [found([thing, other], [0.1, 0.9])])
    for measure in below:
        assert below[measure].ap == pytest.approx(1)
        assert above[measure].ap == pytest.approx(0.5)


def test_a_false_positive_in_a_picture_without_objects_counts() -> None:
    thing = square(10, 10, 30)
    rows = scored([[thing], []], [found([thing], [0.3]), found([thing], [0.9])])
    assert rows["mask"].ap == pytest.approx(0.5)


def test_a_missing_class_has_ap_0_and_one_without_objects_has_none() -> None:
    disc, bar = drawn(0, HW, 40, 40, 20), drawn(2, HW, 60, 90, 20)
    rows = scored([[disc, bar]], [found([disc])])
    for row in rows.values():
        by_name = {each.name: each.ap for each in row.classes}
        assert by_name["disc"] == pytest.approx(1)
        assert by_name["bar"] == pytest.approx(0)
        assert by_name["square"] is None
        assert row.ap == pytest.approx(0.5)


def test_the_wrong_class_is_no_hit() -> None:
    disc = drawn(0, HW, 40, 40, 20)
    rows = scored([[disc]], [found([Thing(1, disc.mask)])])
    assert [row.ap for row in rows.values()] == pytest.approx([0, 0, 0])


def test_boxes_and_masks_are_scored_apart() -> None:
    """The right box around a mask that fills half of it."""
    thing = square(20, 20, 40)
    half = found([thing])
    top, left, covered = half.patches[0]
    wrong = covered.copy()
    wrong[20:] = False
    rows = scored(
        [[thing]], [Instances(half.boxes, half.scores, half.classes, HW, ((top, left, wrong),))]
    )
    assert rows["box"].ap == pytest.approx(1)
    assert rows["mask"].ap == pytest.approx(0.1)  # IoU 0.5 exactly: right at 0.50 alone


def test_what_lies_in_a_crowd_counts_neither_for_nor_against() -> None:
    thing, crowd = square(10, 10, 30), square(50, 60, 40)
    inside = found([thing, square(52, 62, 15), square(70, 80, 15)], [0.2, 0.9, 0.8])
    known = [[thing, Thing(1, crowd.mask, crowd=True)]]
    assert [row.ap for row in scored(known, [inside]).values()] == pytest.approx([1, 1, 1])
    without = scored([[thing]], [inside])
    assert [row.ap for row in without.values()] == pytest.approx([1 / 3] * 3)
    scorer = Scorer(truth(known), recipe())
    scorer.add(3, {"bundle": inside})
    assert (scorer.summary().objects, scorer.summary().crowds) == (1, 1)


def test_no_detection_at_all_is_ap_0() -> None:
    rows = scored([[square(10, 10, 30)]], [found([])])
    assert [row.ap for row in rows.values()] == [0, 0, 0]


def test_both_sides_stand_side_by_side_and_skipped_pictures_do_not_count() -> None:
    scenes = [scene(seed) for seed in range(3)]
    known = truth(scenes)
    scorer = Scorer(known, recipe())
    for picture, things in list(zip(known.pictures, scenes, strict=True))[:2]:
        scorer.add(picture.image_id, {"bundle": found(things[:2]), "reference": found(things)})
    rows = scorer.rows(("reference", "bundle"))
    assert [(row.measure, row.prediction) for row in rows] == [
        (measure, who) for measure in ("box", "mask", "boundary") for who in ("reference", "bundle")
    ]
    assert rows[0].ap == pytest.approx(1)
    assert (rows[1].ap or 0) < 0.9
    summary = scorer.summary()
    assert (summary.pictures, summary.objects) == (2, 8)
    assert summary.evaluator.startswith("faster-coco-eval 1.")


def test_classes_the_truth_does_not_know_are_not_scored() -> None:
    disc, bar = drawn(0, HW, 40, 40, 20), drawn(2, HW, 60, 90, 20)
    rows = scored([[disc]], [found([bar, disc])], left_out=("bar",))
    assert rows["mask"].ap == pytest.approx(1)
    assert [each.name for each in rows["mask"].classes] == ["disc", "square"]


def test_scoring_twice_gives_the_same() -> None:
    scenes = [scene(seed) for seed in range(3)]
    known = truth(scenes)
    scorer = Scorer(known, recipe())
    for picture, things in zip(known.pictures, scenes, strict=True):
        scorer.add(picture.image_id, {"bundle": found(things[1:])})
    assert scorer.rows(("bundle",)) == scorer.rows(("bundle",))


@pytest.mark.usefixtures("without_evaluator")
def test_without_the_evaluator_it_is_said_how_to_get_it() -> None:
    with pytest.raises(DeployError, match="needs faster-coco-eval") as caught:
        Scorer(truth([[square(1, 1, 9)]]), recipe())
    assert "pip install" in caught.value.hint
