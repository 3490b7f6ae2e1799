"""The label figures of every precision: planted errors move them, and only the planted column's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointrend_deploy.parity.scores.intervals import intervals
from pointrend_deploy.parity.semantic.columns import LabelColumns
from pointrend_deploy.parity.semantic.compare import compare
from pointrend_deploy.truth import label_maps as dataset
from tests.fixtures import tiny_pointrend as tiny
from tests.fixtures.fake_bundle import TinyRunner, reference
from tests.parity.semantic.test_compare import pictures, truths

BUNDLE = ("bundle", "truth")
Arrays = dict[str, np.ndarray[Any, Any]]


class Stages:
    """The stages of a runner, as a graph with inner outputs gives them."""

    def __init__(self, mistake: str = "") -> None:
        self._runner = TinyRunner(("stages",), mistake)

    def __call__(self, inputs: Arrays) -> Arrays:
        found = self._runner.infer(inputs)
        return {name: found[name] for name in found if name not in ("logits", "labels")}


class Swapped(TinyRunner):
    """Labels 0 and 1 exchanged in part of the picture."""

    def infer(self, batch: Arrays) -> Arrays:
        found = super().infer(batch)
        labels = found["labels"][:, :32]
        found["labels"][:, :32] = np.where(labels < 2, 1 - labels, labels)
        return found


def columns(folder: Path, other: TinyRunner, mistake: str = "", most: int = 16) -> LabelColumns:
    images = pictures(folder / "images")
    listed = dataset.pairs(images, truths(folder / "labels", images))
    watching = LabelColumns(
        tiny.recipe(), {"fp16": other}, {"fp32": Stages(), "fp16": Stages(mistake)}, most
    )
    assert compare(TinyRunner(), reference(), listed, watch=watching)
    return watching


def test_a_faithful_precision_has_the_figures_of_fp32(tmp_path: Path) -> None:
    found = columns(tmp_path, TinyRunner())
    fp32, fp16 = found.columns["fp32"], found.columns["fp16"]
    assert fp16.agreement("fp32") == 1.0
    assert fp16.compared == 3 * 64 * 96
    assert fp16.truth == fp32.truth is not None
    stages, points = found.stages_of("fp16")
    assert [row.stage for row in stages] == [
        "p2",
        "coarse",
        "step0.point_logits",
        "step1.point_logits",
    ]
    assert [row.noise for row in stages] == [0.0] * 4
    assert [(row.step, row.share, row.sets) for row in points] == [(0, 1.0, 3), (1, 1.0, 3)]
    assert found.stages_of("fp32") == ((), ())


def test_swapped_labels_lower_every_score_of_their_column_alone(tmp_path: Path) -> None:
    found = columns(tmp_path, Swapped())
    fp32, fp16 = found.columns["fp32"], found.columns["fp16"]
    assert (fp32.agreement("reference") or 0) > 0.999
    assert fp16.agreement("fp32") == pytest.approx(fp16.agreement("reference"), abs=1e-3)
    assert 0.5 < (fp16.agreement("fp32") or 0) < 0.99
    assert fp32.truth is not None and fp16.truth is not None
    assert (fp16.truth.miou or 0) < (fp32.truth.miou or 0) - 0.02
    for band in ("2 px", "2 %"):
        assert (fp16.truth.boundary_iou[band] or 0) < (fp32.truth.boundary_iou[band] or 0)
        assert (fp16.mutual.boundary_iou[band] or 0) < 0.99
    assert (fp32.mutual.miou or 0) > 0.999


class SwappedOnce(Swapped):
    """The labels of one picture exchanged."""

    def infer(self, batch: Arrays) -> Arrays:
        return super().infer(batch) if self.calls == 1 else TinyRunner.infer(self, batch)


def test_the_picture_with_the_fewest_equal_labels_is_named(tmp_path: Path) -> None:
    found = columns(tmp_path, SwappedOnce())
    least = found.columns["fp16"].least
    assert least is not None and least[1] == "1"
    assert 1 - (found.columns["fp16"].agreement("fp32") or 0) == pytest.approx((1 - least[0]) / 3)
    fp32 = found.columns["fp32"].least
    assert fp32 is not None and fp32[0] > 0.999


def test_scores_have_intervals_beside_those_of_fp32(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", count=10)
    listed = dataset.pairs(images, truths(tmp_path / "labels", images))
    watching = LabelColumns(tiny.recipe(), {"fp16": Swapped()}, {})
    run = compare(TinyRunner(), reference(), listed, watch=watching)
    assert [row.score for row in run.intervals] == [
        "mIoU",
        "boundary IoU, 2 px",
        "boundary IoU, 2 %",
    ]
    metric = next(row for row in run.metrics if (row.prediction, row.against) == BUNDLE)
    assert run.intervals[0].value == pytest.approx(metric.miou)
    assert run.intervals[1].value == pytest.approx(metric.boundary_iou["2 px"])
    assert run.intervals[0].change == pytest.approx(0, abs=1e-3)
    fp32, fp16 = watching.columns["fp32"], watching.columns["fp16"]
    rows = intervals(fp16.samples, fp32.samples)
    assert fp16.truth is not None and fp32.truth is not None
    miou = (fp16.truth.miou or 0) - (fp32.truth.miou or 0)
    assert rows[0].change == pytest.approx(miou)
    assert rows[0].change_low < rows[0].change < rows[0].change_high < 0


@pytest.mark.parametrize("mistake", ["least certain points", "channels swapped"])
def test_other_points_are_counted_at_their_step(tmp_path: Path, mistake: str) -> None:
    found = columns(tmp_path, TinyRunner(mistake=mistake), mistake)
    stages, points = found.stages_of("fp16")
    assert points[-1].share < 0.9
    assert points[-1].least <= points[-1].share
    assert points[-1].jaccard <= points[-1].share
    noise = {row.stage: row.noise for row in stages}
    assert (noise["p2"] == 0.0) is (mistake == "least certain points")
    assert noise["coarse"] == 0.0


def test_stages_are_compared_for_the_first_pictures_only(tmp_path: Path) -> None:
    found = columns(tmp_path, TinyRunner(), most=2)
    assert found.staged == 2
    assert {row.sets for row in found.stages_of("fp16")[1]} == {2}
    assert found.columns["fp16"].compared == 3 * 64 * 96


def test_rows_that_only_fill_a_batch_up_count_nothing(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    watching = LabelColumns(tiny.recipe(), {"fp16": TinyRunner(batch=2)}, {})
    run = compare(TinyRunner(batch=2), reference(2), dataset.pairs(images), watch=watching)
    assert run.pictures == 3
    assert watching.columns["fp16"].compared == 3 * 64 * 96
    assert watching.columns["fp16"].truth is None
    assert watching.stages_of("fp16") == ((), ())
