from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.parity import gates, tensors
from pointrend_deploy.parity.record.runs import StageRow


def pair() -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return values, values.copy()


def test_figures_are_those_of_the_definition() -> None:
    reference = np.array([[3.0, 4.0, 0.0, 0.0]], np.float32)
    candidate = np.array([[3.0, 4.5, 0.0, -0.5]], np.float32)
    row = tensors.compare_tensor("x", reference, candidate, 0.6)
    assert row
    assert row.max_abs == 0.5
    assert row.mean_abs == 0.25
    assert row.rms_reference == 2.5
    assert row.rms_difference == pytest.approx(np.sqrt(0.125))
    assert row.snr_db == pytest.approx(20 * np.log10(2.5 / np.sqrt(0.125)))


@pytest.mark.parametrize("sign", [1, -1])
def test_one_value_beyond_the_limit_fails(sign: int) -> None:
    reference, candidate = pair()
    candidate[1, 2, 7, 7] += sign * 0.011
    assert not tensors.compare_tensor("x", reference, candidate, 0.01)
    assert tensors.compare_tensor("x", reference, candidate, 0.02)


def test_the_worst_piece_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "PIECE", 50)
    for place in (0, 49, 50, 383):
        reference, candidate = pair()
        candidate.reshape(-1)[place] += 1
        candidate.reshape(-1)[[3, 200]] += 0.1
        assert not tensors.compare_tensor("x", reference, candidate, 0.5)
        assert tensors.compare_tensor("x", reference, candidate, 1.5)


def test_the_verdict_is_polygraphys(monkeypatch: pytest.MonkeyPatch) -> None:
    from polygraphy import comparator

    seen = []
    honest = comparator.IterationResult
    monkeypatch.setattr(comparator, "IterationResult", lambda v: seen.append(v) or honest(v))
    reference, candidate = pair()
    assert tensors.compare_tensor("x", reference, candidate, 0.5)
    assert [len(each["values"]) for each in seen] == [384, 384]
    assert tensors.compare_tensor("x", reference[:0], candidate[:0], 0.5)


def test_another_shape_or_kind_fails_and_is_said() -> None:
    reference, candidate = pair()
    assert "shape" in tensors.compare_tensor("x", reference, candidate[:1], 1).problem
    assert "type" in tensors.compare_tensor("x", reference, candidate.astype(int), 1).problem
    turned = candidate.transpose(0, 1, 3, 2)
    assert not tensors.compare_tensor("x", reference, turned, 1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_even_on_both_sides(value: float) -> None:
    reference, candidate = pair()
    candidate[0, 0, 0, 0] = value
    row = tensors.compare_tensor("x", reference, candidate, 1e9)
    assert not row
    assert row.problem == "1 of 384 values of the candidate are NaN or infinite"
    assert not tensors.compare_tensor("x", candidate, candidate, 1e9)


def rows_of(
    reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray], **limits: float
) -> list[StageRow]:
    """A row a stage, by the written limits unless others are given."""
    rows = []
    for name, expected in reference.items():
        limit = limits.get(name, gates.scaled(gates.tensor_tolerance(name), expected))
        found = candidate.get(name)
        rows.append(
            tensors.missing(name, expected)
            if found is None
            else tensors.compare_tensor(name, expected, found, limit)
        )
    return rows


def test_the_first_divergent_stage_is_the_first_in_order() -> None:
    reference = {name: pair()[0] for name in ("p2", "coarse", "logits")}
    candidate = {name: value.copy() for name, value in reference.items()}
    assert tensors.first_divergent(rows_of(reference, candidate)) is None
    candidate["logits"] += 1
    candidate["coarse"] += 1
    assert tensors.first_divergent(rows_of(reference, candidate)) == "coarse"
    assert tensors.first_divergent(rows_of(reference, candidate, coarse=2.0)) == "logits"
    del candidate["p2"]
    rows = rows_of(reference, candidate)
    assert (rows[0].name, rows[0].problem) == ("p2", "missing")
    assert tensors.first_divergent(rows) == "p2"


def test_limits_grow_with_the_reference_and_never_shrink() -> None:
    ones = np.ones((4, 4), np.float32)
    assert gates.scaled(gates.COARSE, ones) == pytest.approx(1e-3)
    assert gates.scaled(gates.COARSE, 0.01 * ones) == pytest.approx(1e-3)
    assert gates.scaled(gates.COARSE, -20 * ones) == pytest.approx(2e-2)
    assert gates.scaled(gates.COARSE, np.full(3, np.nan)) == pytest.approx(1e-3)


def test_a_large_reference_still_exposes_a_relative_error() -> None:
    reference, _ = pair()
    assert not rows_of({"coarse": 30 * reference}, {"coarse": 30.3 * reference})[0]
    assert rows_of({"coarse": 30 * reference}, {"coarse": 30.0001 * reference})[0]


@pytest.mark.parametrize(
    ("value", "op", "passes"),
    [(1.0, "<=", True), (1.1, "<=", False), (1.0, ">=", True), (0.9, ">=", False)],
)
def test_a_gate_holds_its_value_against_its_limit(value: float, op: str, passes: bool) -> None:
    assert bool(gates.gate("g", "s", value, op, 1.0, "why")) is passes  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_gate_without_a_value_fails(value: float | None) -> None:
    assert not gates.gate("g", "s", value, "<=", 1.0, "why")
    assert not gates.gate("g", "s", value, ">=", 1.0, "why")
