"""Where the error enters: planted noise is measured, and named at the stage it was planted in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pointrend_deploy.parity.noise import NOT_FINITE, StageSums, entry
from pointrend_deploy.parity.record.precisions import StageNoise

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)
BLOCKS = ("stem", "res2.0", "res2.1", "coarse")


def stages() -> dict[str, Array]:
    return {name: RNG.standard_normal((2, 4, 6, 6)).astype(np.float32) for name in BLOCKS}


def noisy(values: Array, share: float) -> Array:
    return values + share * RNG.standard_normal(values.shape).astype(np.float32)


def test_the_ratio_is_that_of_the_planted_noise_over_all_pictures() -> None:
    sums = StageSums()
    for share in (0.01, 0.01, 0.02):
        fp32 = stages()
        sums.add(fp32, {name: noisy(values, share) for name, values in fp32.items()})
    for row in sums.stages():
        assert row.rms == pytest.approx(1.0, abs=0.1)
        assert row.noise == pytest.approx(np.sqrt((1 + 1 + 4) / 3) * 0.01, rel=0.1)
        assert row.snr_db == pytest.approx(20 * np.log10(row.rms / row.noise))  # type: ignore[operator]
    assert [row.stage for row in sums.stages()] == list(BLOCKS)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_error_enters_at_the_first_block_it_reached(block: str) -> None:
    fp32, at = stages(), BLOCKS.index(block)
    sums = StageSums()
    found = {n: noisy(v, 0.1) if BLOCKS.index(n) >= at else v for n, v in fp32.items()}
    sums.add(fp32, found)
    first = entry(sums.stages())
    assert first is not None and first.stage == block
    assert [row.noise == 0 for row in sums.stages()] == [place < at for place in range(len(BLOCKS))]
    assert sums.stages()[0].snr_db is None or at == 0


def test_little_noise_enters_nowhere_and_none_at_all_is_no_ratio() -> None:
    sums = StageSums()
    fp32 = stages()
    sums.add(fp32, {name: noisy(values, 1e-3) for name, values in fp32.items()})
    assert entry(sums.stages()) is None
    assert entry([StageNoise(stage="a", rms=1.0, noise=1.0, snr_db=0.0)]) is not None
    equal = StageSums()
    equal.add(fp32, fp32)
    assert entry(equal.stages()) is None
    assert all(row.noise == 0 and row.snr_db is None for row in equal.stages())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_where_it_enters(value: float) -> None:
    fp32 = stages()
    found = {**fp32, "res2.1": fp32["res2.1"].copy()}
    found["res2.1"][0, 0, 0, 0] = value
    sums = StageSums()
    sums.add(fp32, found)
    first = entry(sums.stages())
    assert first is not None and (first.stage, first.problem) == ("res2.1", NOT_FINITE)


def test_half_precision_is_held_in_full() -> None:
    fp32 = {"p2": np.full((1, 1, 2, 2), 60000.0, np.float32)}
    sums = StageSums()
    sums.add(fp32, {"p2": fp32["p2"].astype(np.float16)})
    (row,) = sums.stages()
    assert row.noise == pytest.approx(0.0) and row.rms == pytest.approx(60000.0)


def test_what_a_graph_lacks_or_shapes_otherwise_is_said() -> None:
    fp32 = stages()
    found = {**fp32, "stem": fp32["stem"][:, :2]}
    del found["coarse"]
    sums = StageSums()
    sums.add(fp32, found)
    rows = {row.stage: row for row in sums.stages()}
    assert "no such value" in rows["coarse"].problem
    assert "shape (2, 2, 6, 6)" in rows["stem"].problem
    assert entry(sums.stages()) is None


def step(indices: list[int], logits: Array) -> dict[str, Array]:
    return {"step1.indices": np.array([indices]), "step1.point_logits": logits[:, :, indices]}


def test_points_are_sets_and_logits_are_held_at_points_both_chose() -> None:
    grid = RNG.standard_normal((1, 3, 16)).astype(np.float32)
    fp32 = step([0, 1, 2, 3], grid)
    same = StageSums()
    same.add(fp32, step([3, 2, 1, 0], grid))
    (overlap,) = same.points()
    assert (overlap.share, overlap.jaccard, overlap.k, overlap.sets) == (1.0, 1.0, 4, 1)
    assert same.stages()[0].noise == 0

    moved = StageSums()
    moved.add(fp32, step([3, 2, 9, 10], grid))
    (overlap,) = moved.points()
    assert (overlap.share, overlap.least) == (0.5, 0.5)
    assert overlap.jaccard == pytest.approx(2 / 6)
    assert moved.stages()[0].noise == 0  # at the two points both chose nothing differs

    moved.add(fp32, step([0, 1, 2, 3], grid + 0.5))
    (overlap,) = moved.points()
    assert (overlap.sets, overlap.share, overlap.least) == (2, 0.75, 0.5)
    assert moved.stages()[0].noise == pytest.approx(0.5 * np.sqrt(4 / 6))


def test_a_step_that_recomputes_every_cell_has_logits_and_no_sets() -> None:
    logits = RNG.standard_normal((1, 3, 16)).astype(np.float32)
    sums = StageSums()
    sums.add({"step0.point_logits": logits}, {"step0.point_logits": logits + 1})
    assert sums.points() == ()
    assert sums.stages()[0].noise == pytest.approx(1.0)


def test_pictures_without_detections_count_nothing() -> None:
    none = step([0, 1], RNG.standard_normal((1, 3, 16)).astype(np.float32))
    none = {name: values[:0] for name, values in none.items()}
    sums = StageSums()
    sums.add(none, none)
    assert sums.points() == ()
    assert sums.stages()[0].problem == "nothing to compare"


def test_logits_near_zero_by_choice_are_not_where_the_error_enters() -> None:
    mask = 0.01 * RNG.standard_normal((2, 1, 16)).astype(np.float32)
    fp32 = {"step1.indices": np.array([[0, 1], [2, 3]]), "step1.point_logits": mask[:, :, :2]}
    fp32["mask_logits"] = np.ones((2, 4), np.float32)
    slightly = {n: v if n.endswith("indices") else v + 0.005 for n, v in fp32.items()}
    sums = StageSums()
    sums.add(fp32, slightly)
    points, final = sums.stages()
    assert points.near_zero and (points.snr_db or 0) < 10
    assert (final.snr_db or 0) > 40
    assert entry(sums.stages()) is None
    much = StageSums()
    much.add(fp32, {**slightly, "mask_logits": fp32["mask_logits"] + 0.2})
    first = entry(much.stages())
    assert first is not None and first.stage == "mask_logits"
