"""An instance bundle against its reference: rounding passes, every planted mistake does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.compare import compare_instances
from pointrend_deploy.parity.instance.picture import Compared
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.truth.annotations import InstanceTruth, TruthObject, TruthPicture
from tests.fixtures import tiny_instance
from tests.fixtures.instance_runners import (
    SIZES,
    Mistake,
    Sides,
    blank,
    changed,
    doubled,
    dropped,
    manifest,
    pictures,
)

STANDARD = tiny_instance.STANDARD


def run(
    folder: Path,
    mistake: Mistake | None = None,
    sizes: tuple[tuple[int, int], ...] = SIZES[:2],
    **described: object,
) -> Run:
    sides = Sides(manifest(**described), mistake)  # type: ignore[arg-type]
    return compare_instances(sides, sides.reference, pictures(folder / "images", sizes))


@pytest.mark.parametrize("masks", ["prob", "prob-u8", "logits"])
def test_another_rounding_passes_on_pictures_of_every_size(tmp_path: Path, masks: str) -> None:
    sizes = SIZES if masks == "prob" else SIZES[:2]
    found = run(tmp_path, sizes=sizes, masks=masks)
    assert found, [gate for gate in found.gates if not gate]
    assert found.pictures == len(sizes) == len(found.detected_pictures)
    total = found.detections
    assert total is not None and total
    assert total.matched > 15 * len(sizes)
    assert total.only_bundle + total.only_reference == total.explained
    assert total.box_canvas_px is not None and total.box_canvas_px < 0.01
    assert total.box_picture_px is not None
    assert total.score is not None and total.score < 1e-4
    assert total.mask_iou_mean is not None and total.mask_iou_mean > 0.999
    assert [row.name for row in found.stages] == ["detections", "masks"]
    names = {(gate.stage, gate.name) for gate in found.gates}
    assert ("detections", "largest difference of a box, pixels") in names
    assert ("masks", "least IoU") in names
    assert {row.size_hw for row in found.detected_pictures} == set(sizes)


def test_the_standard_mask_head_and_batches(tmp_path: Path) -> None:
    for batch in (1, 3):
        found = run(tmp_path, sizes=SIZES[:4], recipe=STANDARD, batch=batch)
        assert found, [gate for gate in found.gates if not gate]
        assert [row.detections.matched > 0 for row in found.detected_pictures] == [True] * 4


def test_sizes_are_told_in_pixels_of_both(tmp_path: Path) -> None:
    """A 48 x 64 picture stands twice as large on the canvas: 0.04 there is 0.02 of its own."""
    mistake = changed("boxes", (0, 0, 3), lambda y: y - 0.04)
    found = run(tmp_path, mistake, ((48, 64),))
    assert found
    assert found.detections is not None
    assert found.detections.box_canvas_px == pytest.approx(0.04, abs=2e-3)
    assert found.detections.box_picture_px == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (changed("boxes", (0, 0, 2), lambda x: x - 0.2), "0.2 px and"),
        (changed("boxes", (0, 0), lambda box: box * 0.9), "px and"),
        (changed("scores", (0, 0), lambda s: s + 2e-3), "0.002 in score"),
        (changed("classes", (0, 0), lambda c: (c + 1) % 3), "is of class"),
        (dropped(1), "missing that nothing suppresses"),
        (doubled(2), "none of the reference's"),
        (changed("num_detections", (0,), lambda n: n + 100), "a count of"),
        (changed("boxes", (0, 1, 0), lambda x: np.nan), "NaN or infinite"),
        (changed("scores", (0, 1), lambda s: np.inf), "a score is NaN or infinite"),
        (changed("scores", (0, slice(0, 2)), lambda s: s[::-1].copy()), "the scores do not fall"),
        (changed("masks", (0, 1), lambda m: m * np.nan), "mask probabilities outside"),
        (changed("masks", (0, 1), lambda m: m + 7), "mask probabilities outside"),
    ],
)
def test_a_planted_mistake_fails_and_is_named(tmp_path: Path, mistake: Mistake, words: str) -> None:
    found = run(tmp_path, mistake)
    assert not found
    assert found.detections is not None and not found.detections
    assert found.first_divergent == "detections"
    assert any(words in told for told in found.detections.unexplained), found.detections
    assert not all(found.gates)
    assert not found.detected_pictures[0].detections


@pytest.mark.parametrize(
    "mistake",
    [
        changed("masks", (0, 0), blank),
        changed("masks", (0, 0), lambda m: np.roll(m, 8, axis=1)),
        changed("masks", (0, slice(0, 2)), lambda m: m[::-1].copy()),
        changed("masks", (0,), lambda m: np.sqrt(m)),
        changed("masks", (0, 0), lambda m: m.T.copy()),
    ],
    ids=["empty", "shifted", "exchanged", "another threshold", "transposed"],
)
def test_a_mistake_in_the_masks_fails_there(tmp_path: Path, mistake: Mistake) -> None:
    found = run(tmp_path, mistake)
    assert not found
    assert found.first_divergent == "masks"
    total = found.detections
    assert total is not None and not total
    assert total.mask_iou_min is not None and total.mask_iou_min < 0.99
    assert total.unexplained == ()
    assert found.detected_pictures[0].detections.mask_iou_min == total.mask_iou_min


def test_one_bad_picture_of_many_is_first_in_the_table(tmp_path: Path) -> None:
    calls = []

    def third(outputs: dict[str, np.ndarray]) -> None:
        calls.append(1)
        if len(calls) == 3:
            dropped(0)(outputs)

    found = run(tmp_path, third, SIZES[:4])
    assert not found
    assert found.detected_pictures[0].name == "2"
    assert [bool(row.detections) for row in found.detected_pictures] == [False, True, True, True]
    assert found.detections is not None
    assert found.detections.unexplained[0].startswith("2: ")
    assert found.detections.only_reference - found.detections.explained >= 1


def test_nothing_found_on_either_side_agrees(tmp_path: Path) -> None:
    quiet = tiny_instance.changed(tiny_instance.POINTREND, "box_head", score_threshold=0.999999)
    found = run(tmp_path, recipe=quiet)
    assert found
    assert found.detections is not None
    assert found.detections.matched == 0
    assert found.detections.box_canvas_px is None


def test_something_found_where_the_reference_finds_nothing_fails(tmp_path: Path) -> None:
    quiet = tiny_instance.changed(tiny_instance.POINTREND, "box_head", score_threshold=0.999999)

    def imagine(outputs: dict[str, np.ndarray]) -> None:
        outputs["num_detections"][0] = 1
        outputs["boxes"][0, 0] = (3, 4, 20, 30)
        outputs["scores"][0, 0] = 0.9

    found = run(tmp_path, imagine, recipe=quiet)
    assert not found
    assert found.detections is not None
    assert found.detections.only_bundle >= 1


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    sides = Sides(manifest(batch=2))
    given = pictures(tmp_path / "images", SIZES[:3])
    given[1].path.write_bytes(b"torn")
    told: list[tuple[int, int, str]] = []
    found = compare_instances(
        sides, sides.reference, given, progress=lambda *each: told.append(each)
    )
    assert found
    assert found.pictures == 2
    assert [item.name for item in found.skipped] == ["1"]
    assert told[0] == (0, 3, "0")
    assert told[-1] == (3, 3, "")
    for picture in given:
        picture.path.write_bytes(b"")
    with pytest.raises(DeployError, match="no picture could be compared"):
        compare_instances(sides, sides.reference, given)


def test_truth_made_of_the_reference_scores_both_sides(tmp_path: Path) -> None:
    """Objects are what the reference finds, so it has AP 1, and a bundle that lost some less."""
    described = manifest()
    recipe, _ = described.instances
    given = pictures(tmp_path / "images", SIZES[:3], first_id=5)
    seen: list[Compared] = []
    sides = Sides(described)
    compare_instances(sides, sides.reference, given, seen=seen.append)
    objects = [
        TruthObject(
            each.picture.image_id or 0,
            int(label),
            (float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])),
            float((box[2] - box[0]) * (box[3] - box[1])),
            False,
            dict(each.reference.rle(index)),
        )
        for each in seen
        for index, (box, label) in enumerate(
            zip(each.reference.boxes, each.reference.classes, strict=True)
        )
        if each.reference.mask(index).any()
    ]
    known = InstanceTruth(
        "made",
        tuple(
            TruthPicture(picture.image_id or 0, picture.name, picture.path, size)
            for picture, size in zip(given, SIZES, strict=False)
        ),
        tuple(objects),
    )
    scorer = Scorer(known, recipe)
    sides = Sides(described, dropped(0))
    found = compare_instances(sides, sides.reference, given, scorer)
    assert not found
    scores = {(row.measure, row.prediction): row.ap or 0.0 for row in found.accuracy}
    assert len(scores) == 6
    assert scores["box", "reference"] > 0.98
    for measure in ("box", "mask", "boundary"):
        assert scores[measure, "bundle"] < scores[measure, "reference"]
    assert found.truth is not None
    assert (found.truth.pictures, found.truth.objects) == (3, len(objects))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Run) == found
