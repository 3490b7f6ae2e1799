"""Values of a graph, read in groups, and their histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from pointrend_deploy.errors import DeployError
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.quantize.observe import Observer, grouped, part_of, real_rows
from pointrend_deploy.quantize.placement import observable
from pointrend_deploy.quantize.ranges import BINS, SMALLEST_LIMIT, Tally, limit_of, merged
from tests.fixtures.small_graphs import residual_pyramid

IMAGE = np.random.default_rng(4).normal(size=(1, 3, 32, 32)).astype(np.float32)


def tallied(*arrays: Any) -> Tally:
    tally = Tally()
    for array in arrays:
        tally.add(np.asarray(array, np.float32))
    return tally


def test_counts_are_numpys() -> None:
    values = np.random.default_rng(0).normal(size=(3, 700_000)).astype(np.float32)
    tally = tallied(values)
    expected, _ = np.histogram(np.abs(values), BINS, (0, tally.limit))
    np.testing.assert_array_equal(tally.counts, expected)
    assert tally.amax == np.abs(values).max()
    assert tally.limit == 8


def test_the_order_of_pictures_does_not_matter() -> None:
    random = np.random.default_rng(1)
    arrays = [random.normal(size=5000) * 10.0**p for p in (-3, 2, 0, -9, 5)]
    arrays += [np.zeros(7), np.array([2.0**17]), np.array([1.0, 2.0, 4.0])]
    first = tallied(*arrays)
    for order in (random.permutation(len(arrays)) for _ in range(8)):
        other = tallied(*(arrays[index] for index in order))
        np.testing.assert_array_equal(other.counts, first.counts)
        assert (other.limit, other.amax) == (first.limit, first.amax)
    np.testing.assert_array_equal(tallied(np.concatenate(arrays)).counts, first.counts)
    assert first.counts.sum() == sum(array.size for array in arrays)


@pytest.mark.parametrize("value", [1.0, 0.999, 2.0**-60, 3.4e38, 1e-45])
def test_the_limit_is_a_power_of_two_above_the_value(value: float) -> None:
    value = float(np.float32(value))
    limit = limit_of(value)
    assert value < limit
    assert limit <= max(2 * value, SMALLEST_LIMIT)
    assert tallied([value]).counts.sum() == 1


def test_merging_in_pairs() -> None:
    counts = np.arange(BINS)
    assert merged(counts, 1)[:2].tolist() == [1, 5]
    assert merged(counts, 200)[0] == counts.sum()
    np.testing.assert_array_equal(merged(counts, 3), merged(merged(merged(counts, 1), 1), 1))


def test_zeros_and_nothing() -> None:
    tally = tallied(np.zeros(9), np.zeros((0, 4)))
    assert (tally.amax, tally.counts[0], tally.counts.sum()) == (0, 9, 9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_counted(value: float) -> None:
    tally = tallied([1.0])
    with pytest.raises(DeployError, match="infinite or not a number"):
        tally.add(np.array([0.5, value], np.float32))
    assert tally.counts.sum() == 1


def all_values(model: onnx.ModelProto, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Each fetched from the whole graph."""
    whole = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name: value for value in (*whole.graph.value_info, *whole.graph.output)}
    has = {value.name for value in whole.graph.output}
    whole.graph.output.extend(known[n] for n in names if n in known and n not in has)
    wanted = [name for name in names if name in known]
    found = open_session(whole.SerializeToString(), 1).run(wanted, {"image": IMAGE})
    return {"image": IMAGE, **dict(zip(wanted, found, strict=True))}


@pytest.mark.parametrize("budget", [1, 20_000, 1 << 30])
def test_values_are_those_of_the_whole_graph_whatever_the_budget(budget: int) -> None:
    model = residual_pyramid()
    names = (*observable(model), *(value.name for value in model.graph.output))
    observer = Observer(model, names, budget=budget)
    assert len(observer._sessions) == (
        len(names) - 1 if budget == 1 else 1 if budget > 1 << 20 else 2
    )
    found = dict(observer.run({"image": IMAGE}))
    assert list(found) == list(names)
    for name, values in all_values(model, names).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_outputs_are_given_back_besides() -> None:
    model = residual_pyramid()
    output = model.graph.output[0].name
    kept: dict[str, NDArray[Any]] = {}
    observer = Observer(model, ["backbone.add.out"], keep=[output])
    assert [name for name, _ in observer.run({"image": IMAGE}, kept)] == ["backbone.add.out"]
    np.testing.assert_array_equal(kept[output], all_values(model, (output,))[output])


def test_a_part_has_what_its_values_need_and_no_more() -> None:
    model = residual_pyramid()
    known = {value.name: value for value in model.graph.value_info}
    first = observable(model)[1]
    part = onnx.ModelProto.FromString(part_of(model, [first], known))
    assert 0 < len(part.graph.node) < 4
    assert {t.name for t in part.graph.initializer} == {
        name for node in part.graph.node for name in node.input if name.endswith(("weight", "bias"))
    }


def test_groups_stay_within_the_budget() -> None:
    sizes = {"a": 4, "b": 6, "c": 1, "d": 30, "e": 2, "f": 8}
    assert grouped(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert grouped({}, 10) == []


def test_rows_that_repeat_a_picture_are_not_counted() -> None:
    rows = np.arange(12).reshape(12, 1)
    assert real_rows(rows, 1, 4)[:, 0].tolist() == [0, 1, 2]
    assert real_rows(rows, 4, 4) is rows
    assert len(real_rows(np.zeros((5, 2)), 1, 4)) == 5  # not of the pictures
