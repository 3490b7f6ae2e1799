"""The detections of every precision: planted errors are counted, and only in their column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointrend_deploy.parity.instance.columns import InstanceColumns, Matches
from pointrend_deploy.parity.instance.compare import compare_instances
from pointrend_deploy.parity.instance.picture import Compared
from pointrend_deploy.parity.scores import intervals
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.truth.annotations import InstanceTruth, TruthObject, TruthPicture
from tests.fixtures.instance_data import Thing, scene
from tests.fixtures.instance_data import found as drawn_as
from tests.fixtures.instance_runners import (
    SIZES,
    Mistake,
    Sides,
    blank,
    changed,
    dropped,
    manifest,
    pictures,
)

Arrays = dict[str, np.ndarray[Any, Any]]


class Stages:
    """Stages of two detections and one proposal, the fp16 graph's off by a given noise."""

    def __init__(self, noise: float = 0.0) -> None:
        self._noise = noise
        self.used: list[int] = []

    def __call__(self, inputs: Arrays, used: int) -> Any:
        self.used.append(used)
        fp32 = {
            "p2": np.ones((used, 4), np.float32),
            "step1.indices": np.array([[0, 1], [2, 3]]),
            "mask_logits": np.ones((2, 8, 8), np.float32),
        }
        fp16 = {**fp32, "mask_logits": fp32["mask_logits"] + self._noise}
        return {"fp32": fp32, "fp16": fp16}


def columns(
    folder: Path,
    mistake: Mistake | None,
    noise: float = 0.0,
    scorer: Scorer | None = None,
    most: int = 16,
) -> InstanceColumns:
    made = manifest()
    fp32 = Sides(made)
    other = Sides(made, mistake, fp32.model)
    stages = Stages(noise)
    watching = InstanceColumns(made, {"fp16": other}, stages, scorer, most)
    listed = pictures(folder / "images", SIZES[:2], first_id=5)
    assert compare_instances(fp32, fp32.reference, listed, watch=watching)
    return watching


def test_a_faithful_precision_finds_what_fp32_finds(tmp_path: Path) -> None:
    found = columns(tmp_path, None, noise=0.01)
    own = found.columns["fp16"].fp32.figures()
    assert own.matched > 30
    assert (own.only_here, own.only_there) == (0, 0)
    assert own.box_px == 0.0
    assert own.mask_iou_mean == own.mask_iou_min == 1.0
    beside = found.columns["fp16"].reference.figures()
    assert beside == found.columns["fp32"].reference.figures()
    rows = {row.stage: row for row in found.columns["fp16"].sums.stages()}
    assert rows["p2"].noise == 0.0
    assert rows["mask_logits"].snr_db == pytest.approx(40.0, abs=0.01)
    (points,) = found.columns["fp16"].sums.points()
    assert (points.sets, points.share) == (4, 1.0)
    assert found.staged == 2


def test_a_missing_detection_is_one_only_there(tmp_path: Path) -> None:
    found = columns(tmp_path, dropped(1), most=1)
    own = found.columns["fp16"].fp32.figures()
    assert (own.only_here, own.only_there) == (0, 2)
    assert found.columns["fp32"].reference.figures().only_there == 0
    assert found.staged == 1


def test_a_moved_box_and_a_blank_mask_show_in_their_figures(tmp_path: Path) -> None:
    moved = columns(tmp_path, changed("boxes", (0, 0, 2), lambda x: x - 0.5))
    own = moved.columns["fp16"].fp32.figures()
    assert own.box_px == pytest.approx(0.5, abs=0.01)
    assert own.box_median_px == 0.0
    everywhere = columns(tmp_path, changed("boxes", (0, slice(None), 2), lambda x: x - 0.5))
    own = everywhere.columns["fp16"].fp32.figures()
    assert own.box_median_px == pytest.approx(0.5, abs=0.05)
    blanked = columns(tmp_path, changed("masks", (0, 0), blank))
    own = blanked.columns["fp16"].fp32.figures()
    assert own.mask_iou_min == 0.0 and own.mask_iou_mean is not None
    assert 0.9 < own.mask_iou_mean < 1.0
    assert own.box_px == 0.0


def test_the_pictures_with_the_worst_box_and_the_worst_mask_are_named() -> None:
    things = [scene(seed) for seed in (1, 2, 3)]
    moved = list(things)
    moved[1] = [Thing(each.label, np.roll(each.mask, 3, axis=1)) for each in things[1]]
    moved[2] = [Thing(each.label, each.mask.copy()) for each in things[2]]
    first = moved[2][0].mask
    rows, columns = np.nonzero(first)
    first[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()] = False
    sums = Matches()
    for name, ours, theirs in zip("abc", moved, things, strict=True):
        sums.add(name, drawn_as(ours), drawn_as(theirs))
    figures = sums.figures()
    assert figures.box_px_at == "b" and figures.box_px == 3.0
    assert figures.mask_iou_min_at == "c" and (figures.mask_iou_min or 1) < 0.5
    assert Matches().figures().box_px_at is None


def test_answers_that_cannot_be_right_are_told_and_count_as_nothing_found(tmp_path: Path) -> None:
    found = columns(tmp_path, changed("boxes", (0, 1, 0), lambda x: np.nan))
    column = found.columns["fp16"]
    assert len(column.unreadable) == 2
    assert "0: the bundle gave boxes that are not finite" in column.unreadable[0]
    assert column.fp32.figures().matched == 0
    assert column.fp32.figures().only_there > 30
    assert column.fp32.figures().box_px is None


def test_average_precision_of_every_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, _ = manifest().instances
    objects: list[TruthObject] = []

    def remember(seen: Compared) -> None:
        found = seen.reference
        for row in range(len(found)):
            x1, y1, x2, y2 = (float(v) for v in found.boxes[row])
            objects.append(
                TruthObject(
                    image_id=seen.picture.image_id or 0,
                    label=int(found.classes[row]),
                    box=(x1, y1, x2 - x1, y2 - y1),
                    area=float(found.mask(row).sum()),
                    segmentation=dict(found.rle(row)),
                    crowd=False,
                )
            )

    listed = pictures(tmp_path / "images", SIZES[:2], first_id=5)
    sides = Sides(manifest())
    compare_instances(sides, sides.reference, listed, seen=remember)
    shown = tuple(
        TruthPicture(image_id=each.image_id or 0, name=each.name, path=each.path, hw=hw)
        for each, hw in zip(listed, SIZES[:2], strict=True)
    )
    truth = InstanceTruth(source="made", pictures=shown, objects=tuple(objects))
    same = columns(tmp_path, None, scorer=Scorer(truth, recipe))
    good = same.accuracy("fp16")
    assert same.intervals("fp16") == (), "two pictures, and fp32 was not added"
    bad = columns(tmp_path, changed("masks", (0,), blank), scorer=Scorer(truth, recipe))
    poor = {row.measure: row.ap or 0.0 for row in bad.accuracy("fp16")}
    fine = {row.measure: row.ap or 0.0 for row in good}
    assert set(fine) == {"box", "mask", "boundary"}
    assert fine["mask"] > 0.9 and fine["boundary"] > 0.9
    assert poor["box"] == pytest.approx(fine["box"])
    assert poor["mask"] < 0.1 and poor["boundary"] < 0.1
    assert bad.accuracy("fp32") == ()
    monkeypatch.setattr(intervals, "LEAST_PICTURES", 2)
    fp32, scorer = Sides(manifest()), Scorer(truth, recipe)
    other = Sides(manifest(), changed("masks", (0,), blank), fp32.model)
    both = InstanceColumns(manifest(), {"fp16": other}, None, scorer)
    run = compare_instances(fp32, fp32.reference, listed, scorer, watch=both)
    assert {row.prediction for row in run.accuracy} == {"reference", "bundle"}
    own = {row.score: row for row in run.intervals}
    lost = {row.score: row for row in both.intervals("fp16")}
    assert own["mask AP"].value == pytest.approx(fine["mask"])
    assert abs(own["mask AP"].change) < 1e-6
    assert lost["mask AP"].change == pytest.approx(poor["mask"] - fine["mask"])
    assert lost["mask AP"].change_high < -0.5 and lost["box AP"].holds_zero
    assert both.intervals("fp32") == ()
    nan = changed("boxes", (0, 0, 0), lambda x: np.nan)
    nothing = columns(tmp_path, nan, scorer=Scorer(truth, recipe)).accuracy("fp16")
    assert [row.ap for row in nothing] == [0.0, 0.0, 0.0]
    assert columns(tmp_path, None).accuracy("fp16") == ()
