"""Ranges from histograms, held against the same sought in the raw values."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.ranges import BINS, Histogram, Method, Tally, TensorRange
from pointrend_deploy.quantize.scales import DEAD, PERCENTILE, all_amax

METHODS: tuple[Method, ...] = get_args(Method)
Values = NDArray[np.float32]


def seen(values: Values) -> TensorRange:
    tally = Tally()
    tally.add(values)
    return TensorRange(tally.amax, Histogram(tally.limit, tuple(tally.counts.tolist())))


def amax_of(observed: TensorRange, method: Method, percentile: float = PERCENTILE) -> float:
    return all_amax({"x": observed}, method, percentile)["x"]


def gaussian(count: int = 200_000) -> Values:
    return np.random.default_rng(3).normal(size=count).astype(np.float32)


def squared_error(values: Values, clip: float) -> float:
    scale = clip / 127
    rounded = np.clip(np.rint(values / scale), -127, 127) * scale
    return float(((values - rounded) ** 2).mean(dtype=np.float64))


def shapes() -> dict[str, Values]:
    random = np.random.default_rng(1)
    return {
        "gaussian": gaussian(50_000),
        "relu": np.maximum(gaussian(50_000), 0),
        "relu6": np.clip(8 * gaussian(50_000), 0, 6),
        "laplace": random.laplace(size=50_000).astype(np.float32) * 1e-4,
        "mostly zero": np.where(random.random(50_000) < 0.99, 0, 7 * gaussian(50_000)),
        "constant": np.full(100, 3.25, np.float32),
        "one value": np.array([-1e-30], np.float32),
        "large": gaussian(50_000) * np.float32(1e30),
        "far outlier": np.append(gaussian(50_000), np.float32(1e6)),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", shapes())
def test_a_range_is_above_zero_and_at_most_the_largest_value(name: str, method: Method) -> None:
    values = shapes()[name].astype(np.float32)
    found = amax_of(seen(values), method)
    assert 0 < found <= np.abs(values).max()


@pytest.mark.parametrize("method", METHODS)
def test_the_sign_and_the_unit_do_not_matter(method: Method) -> None:
    values = gaussian(20_000)
    once = amax_of(seen(values), method)
    assert amax_of(seen(-values), method) == once
    assert amax_of(seen(values * np.float32(64)), method) == 64 * once
    assert amax_of(seen(np.tile(values, 3)), method) == pytest.approx(once, rel=1e-12)


def test_max_is_the_largest_value() -> None:
    assert amax_of(seen(np.array([1.5, -2.75], np.float32)), "max") == 2.75


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0, 99.9])
def test_a_percentile_is_that_of_the_raw_values_within_a_bin(percent: float) -> None:
    values = gaussian()
    whole = seen(values)
    found = amax_of(whole, "percentile", percent)
    truth = float(np.percentile(np.abs(values), percent))
    assert truth <= found <= truth + 1.01 * whole.histogram.limit / BINS


def test_the_hundredth_percentile_is_the_largest_value() -> None:
    values = gaussian()
    assert amax_of(seen(values), "percentile", 100.0) == np.abs(values).max()


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.01, float("nan")])
def test_a_percentile_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 100"):
        amax_of(seen(gaussian(100)), "percentile", percent)


@pytest.mark.parametrize("name", ["gaussian", "relu", "laplace", "mostly zero"])
def test_mse_clips_where_the_raw_values_lose_least(name: str) -> None:
    values = shapes()[name].astype(np.float32)
    whole = seen(values)
    found = amax_of(whole, "mse")
    clips = np.linspace(0.2, 1, 161) * whole.amax
    least = min(squared_error(values, clip) for clip in clips)
    assert squared_error(values, found) <= 1.01 * least


def test_mse_clips_a_gaussian_at_about_four_deviations() -> None:
    # by brute force on a million values: 3.89; the error is flat about it
    values = gaussian(1_000_000)
    assert 3.7 < amax_of(seen(values), "mse") < 4.1


def test_zeros_do_not_move_what_the_error_decides() -> None:
    values = np.append(gaussian(50_000), np.float32(200))  # clips well inside the first bins
    zeros = np.zeros(5_000_000, np.float32)
    for method in ("mse", "entropy"):
        plain = amax_of(seen(values), method)
        mixed = amax_of(seen(np.concatenate((values, zeros))), method)
        assert mixed == pytest.approx(plain, rel=0.15), method


def brute_entropy(counts: NDArray[np.float64], last: int) -> int:
    """The convention of the module, step by step; index of the last bin that is kept."""
    counts = counts.copy()
    counts[0] = counts[1]
    best, found = np.inf, last
    for size in range(128, last + 2):
        p = counts[:size].copy()
        p[-1] += counts[size:].sum()
        level = np.arange(size) * 128 // size
        q = np.zeros(size)
        full = counts[:size] > 0
        sums = np.bincount(level, counts[:size], minlength=128)
        bins = np.bincount(level[full], minlength=128)
        q[full] = (sums / np.maximum(bins, 1))[level[full]]
        if not q.sum():
            continue
        p, q = p / p.sum(), q / q.sum()
        if ((p > 0) & (q == 0)).any():
            continue
        some = p > 0
        divergence = float((p[some] * np.log(p[some] / q[some])).sum())
        if divergence <= best + 1e-13:
            best, found = divergence, size - 1
    return found


@pytest.mark.parametrize("name", ["gaussian", "laplace", "mostly zero", "far outlier"])
def test_entropy_is_the_convention_step_by_step(name: str) -> None:
    whole = seen(shapes()[name].astype(np.float32))
    counts = np.array(whole.histogram.counts, np.float64)
    width = whole.histogram.limit / BINS
    last = min(int(whole.amax / width), BINS - 1)
    expected = min((brute_entropy(counts, last) + 1) * width, whole.amax)
    assert amax_of(whole, "entropy") == pytest.approx(expected, abs=1.01 * width)


def test_all_but_max_clip_one_far_outlier() -> None:
    values = np.append(gaussian(), np.float32(60))
    whole = seen(values)
    assert amax_of(whole, "max") == 60
    for method, most in (("percentile", 5), ("mse", 32), ("entropy", 12)):
        assert amax_of(whole, method) < most, method


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_was_always_zero_has_a_range(method: Method) -> None:
    found = all_amax({"dead": seen(np.zeros(10, np.float32)), "alive": seen(gaussian())}, method)
    assert found["dead"] == DEAD
    assert np.float16(DEAD / 127) > 0
    assert found["alive"] > 3
    assert list(found) == ["dead", "alive"]


def test_many_at_once_are_as_one_by_one() -> None:
    some = ("relu", "constant", "far outlier")
    tensors = {name: seen(shapes()[name].astype(np.float32)) for name in some}
    for method in METHODS:
        assert all_amax(tensors, method) == {n: amax_of(s, method) for n, s in tensors.items()}
    assert all_amax({}, "mse") == {}
