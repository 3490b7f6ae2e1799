"""Every realistic mistake in a deployed PointRend is caught and named; rounding is not."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.errors import ParityError
from pointrend_deploy.parity.semantic.verify import verify_stages
from tests.fixtures import tiny_pointrend as tiny

FIRST = {
    "channels swapped": "p2",
    "half a pixel off": "step0.point_logits",
    "nearest sampling": "step0.point_logits",
    "border padding": "step0.point_logits",
    "align_corners sampling": "step0.point_logits",
    "align_corners upsampling": "step0.indices",
    "k clamped": "step0.indices",
    "least certain points": "step0.indices",
    "coarse sampled from refined logits": "step1.point_logits",
    "points written transposed": "step1.indices",
}


def test_every_mistake_has_its_expected_stage() -> None:
    assert set(FIRST) == set(tiny.MISTAKES)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("mistake", tiny.MISTAKES)
def test_a_planted_mistake_is_caught_at_its_stage(mistake: str, scale: float) -> None:
    result = verify_stages(tiny.run(scale=scale), tiny.run(mistake, scale=scale), tiny.recipe())
    assert not result
    assert result.first_divergent == FIRST[mistake]
    assert not all(result.gates)


@pytest.mark.parametrize("mistake", tiny.MISTAKES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_planted_mistake_is_caught_in_logits_alone(mistake: str, scale: float) -> None:
    candidate = tiny.run(mistake, scale=scale)
    only = {name: candidate[name] for name in ("logits", "labels")}
    result = verify_stages(tiny.run(scale=scale), only, tiny.recipe())
    assert not result


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_rounding_passes(seed: int, scale: float) -> None:
    reference = tiny.run(scale=scale, seed=seed)
    rounded = tiny.run(scale=scale, seed=seed, noise=2e-6)
    result = verify_stages(reference, rounded, tiny.recipe())
    assert result, [(row.name, row.problem) for row in result.stages if not row]
    assert result.first_divergent is None
    assert all(row.max_abs for row in result.stages if row.kind == "tensor")


@pytest.mark.parametrize("seed", range(4))
def test_rounding_passes_where_point_logits_are_larger_than_coarse_ones(seed: int) -> None:
    large = {"seed": seed, "head_scale": 1000.0, "steps": 3, "points": 100}
    reference, rounded = tiny.run(**large), tiny.run(noise=1e-5, **large)
    recipe = tiny.recipe(points=100, steps=3)
    result = verify_stages(reference, rounded, recipe)
    assert result, [(row.name, row.problem) for row in result.stages if not row]
    assert result.points[2].gap_limit > 100 * result.points[0].gap_limit
    assert not verify_stages(reference, tiny.run("half a pixel off", **large), recipe)


def test_the_same_stages_pass_and_every_stage_has_a_row() -> None:
    stages = tiny.run()
    result = verify_stages(stages, stages, tiny.recipe())
    assert result
    assert [row.name for row in result.stages] == list(stages)
    assert all(row.snr_db is None for row in result.stages)


def test_a_swapped_point_does_not_condemn_the_logits_around_it() -> None:
    reference, candidate = tiny.run(points=1000), tiny.run(points=1000)
    # exchange the K-th point of step 0 for the next one by hand
    from pointrend_deploy.parity.subdivision import replay

    first = next(replay.uncertainty_maps(reference)).reshape(-1)
    order = np.argsort(-first, kind="stable")
    gap = float(first[order[999]] - first[order[1000]])
    indices = candidate["step0.indices"].copy()
    indices[indices == order[999]] = order[1000]
    candidate["step0.indices"] = indices
    row, column = divmod(int(order[999]), 48)
    logits = candidate["logits"].copy()
    logits[:, :, 2 * row, 2 * column] += 5.0
    candidate["logits"] = logits
    result = verify_stages(reference, candidate, tiny.recipe(points=1000))
    by_name = {stage.name: stage for stage in result.stages}
    assert by_name["logits"], by_name["logits"].problem
    assert result.points[0].strays == 1
    assert result.points[0].worst_gap == pytest.approx(gap)
    # five rows away from the stray nothing may differ
    logits[:, :, (2 * row + 20) % 64, 2 * column] += 5.0
    again = verify_stages(reference, candidate, tiny.recipe(points=1000))
    assert "logits" in [stage.name for stage in again.stages if not stage]


def test_labels_alone_are_held_against_the_argmax_of_the_reference() -> None:
    reference = tiny.run()
    del reference["labels"]
    labels = reference["logits"].argmax(axis=1).astype(np.uint8)
    assert verify_stages(reference, {"labels": labels}, tiny.recipe())
    wrong = labels.copy()
    wrong[0, :2, :2] = (wrong[0, :2, :2] + 1) % 6
    result = verify_stages(reference, {"labels": wrong}, tiny.recipe())
    assert result.first_divergent == "labels"
    assert result.stages[0].agreement == pytest.approx(1 - 4 / (64 * 96))


def test_only_the_fitted_area_counts_where_it_is_given() -> None:
    reference = tiny.run()
    labels = reference["labels"].copy()
    labels[0, 32:] = (labels[0, 32:] + 1) % 6
    assert not verify_stages(reference, {"labels": labels}, tiny.recipe())
    assert verify_stages(reference, {"labels": labels}, tiny.recipe(), fitted_hw=[(32, 96)])


def test_nothing_to_compare_does_not_pass() -> None:
    result = verify_stages(tiny.run(), {}, tiny.recipe())
    assert not result
    assert result.first_divergent == "labels"


@pytest.mark.parametrize("stage", ["coarse", "step0.indices", "step1.point_logits"])
def test_a_missing_stage_fails_where_others_are_there(stage: str) -> None:
    candidate = tiny.run()
    del candidate[stage]
    result = verify_stages(tiny.run(), candidate, tiny.recipe())
    assert not result
    assert result.first_divergent == stage
    # what is there is still held against its own step
    assert all(row for row in result.points)
    kept = [step for step in (0, 1) if f"step{step}.indices" in candidate]
    assert [row.step for row in result.points] == kept


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("stage", ["p2", "coarse", "step0.point_logits", "logits"])
def test_values_that_are_not_numbers_fail(stage: str, value: float) -> None:
    candidate = tiny.run()
    broken = candidate[stage].copy()
    broken.reshape(-1)[broken.size // 2] = value
    candidate[stage] = broken
    result = verify_stages(tiny.run(), candidate, tiny.recipe())
    assert result.first_divergent == stage
    both = verify_stages(candidate, candidate, tiny.recipe())
    assert not both, "NaN on both sides is no agreement"


def test_the_error_names_the_first_stage_and_ends_with_exit_code_3() -> None:
    result = verify_stages(tiny.run(), tiny.run("k clamped"), tiny.recipe())
    with pytest.raises(
        ParityError, match=r"first at `step0.indices`: 96 points an image"
    ) as caught:
        result.raise_if_failed()
    assert caught.value.exit_code == 3
    verify_stages(tiny.run(), tiny.run(), tiny.recipe()).raise_if_failed()


def test_every_point_chosen_agrees_in_any_order() -> None:
    reference, candidate = tiny.run(points=10_000), tiny.run(points=10_000)
    shuffled = np.random.default_rng(0).permutation(candidate["step0.indices"].shape[1])
    candidate["step0.indices"] = candidate["step0.indices"][:, shuffled]
    candidate["step0.point_logits"] = candidate["step0.point_logits"][:, :, shuffled]
    assert verify_stages(reference, candidate, tiny.recipe(points=10_000))


def test_a_swap_in_one_step_may_swap_points_in_the_next() -> None:
    """The swapped cell's logits differ by O(1) on the finer grid, and so do its uncertainties."""
    from pointrend_deploy.parity.subdivision.stages import cells_reached

    first = np.zeros((1, 8, 8), np.bool_)
    first[0, 2, 3] = True
    reached = cells_reached([first], np.zeros((1, 16, 16), np.float32))
    assert reached is not None
    rows, columns = np.nonzero(reached[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 6, 5, 8)
    assert cells_reached([], np.zeros((1, 16, 16), np.float32)) is None
    assert cells_reached([first], None) is None


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("fault", ["twice", "elsewhere", "outside"])
def test_a_step_whose_points_are_all_wrong_is_named(step: int, fault: str) -> None:
    """Also a middle step, after which the strays of every later one reach further."""
    from tests.conftest import small_recipe

    recipe = small_recipe()
    reference = {"coarse": np.random.default_rng(3).normal(size=(1, 6, 8, 12)).astype(np.float32)}
    for number in range(4):
        cells = 96 * 4 ** (number + 1)
        chosen = np.arange(0, 40)[None]
        reference[f"step{number}.indices"] = chosen
        reference[f"step{number}.point_logits"] = np.ones((1, 6, 40), np.float32)
        assert cells > 200
    reference["labels"] = np.zeros((1, 128, 192), np.uint8)
    candidate = {name: value.copy() for name, value in reference.items()}
    wrong = candidate[f"step{step}.indices"]
    wrong[:] = {
        "twice": np.zeros_like(wrong),
        "elsewhere": wrong + 100,
        "outside": wrong + 10**6,
    }[fault]
    result = verify_stages(reference, candidate, recipe)
    assert result.first_divergent == f"step{step}.indices"


@pytest.mark.parametrize("step", range(3))
def test_a_step_without_indices_is_named(step: int) -> None:
    """Nothing is known of its strays, so those of later steps are only counted."""
    reference = tiny.run(steps=3)
    candidate = {name: value.copy() for name, value in reference.items()}
    del candidate[f"step{step}.indices"]
    result = verify_stages(reference, candidate, tiny.recipe())
    assert result.first_divergent == f"step{step}.indices"
    assert [row.name for row in result.stages if not row] == [
        f"step{step}.{what}" for what in ("indices", "point_logits")
    ]


def test_two_near_ties_pass_on_any_grid_and_three_do_not() -> None:
    from pointrend_deploy.parity import gates

    assert gates.strays_limit(100) == 0.02
    assert gates.strays_limit(8192) == gates.STRAYS.limit
    assert not gates.labels_problem(1 - 2 / 6144, 6144)
    assert gates.labels_problem(1 - 3 / 6144, 6144)
    assert gates.labels_problem(0.9997, 1024 * 2048)
