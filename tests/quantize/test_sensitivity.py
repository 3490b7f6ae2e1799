"""Which blocks are left out of INT8, on landscapes of costs whose best answer is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest

from pointrend_deploy.quantize.layers import weighted_layers
from pointrend_deploy.quantize.placement import place
from pointrend_deploy.quantize.sensitivity import (
    Block,
    Costs,
    blocks_of,
    chosen,
    measured,
    most_calls,
)
from tests.fixtures.small_graphs import residual_pyramid

FLOOR = 0.05


class Landscape:
    """Costs of what stays in INT8, and how often they were asked for."""

    def __init__(
        self, blocks: Sequence[Block], points: Callable[[frozenset[str]], float], floor: float
    ) -> None:
        self.blocks, self.points, self.floor = tuple(blocks), points, floor
        self.calls = 0

    def __call__(self, keep: frozenset[str]) -> float:
        self.calls += 1
        return self.of(keep)

    def of(self, keep: frozenset[str]) -> float:
        stays = frozenset(b.name for b in self.blocks if not b.layers <= keep)
        return math.hypot(self.floor, self.points(stays))

    def costs(self) -> Costs:
        every = frozenset().union(*(block.layers for block in self.blocks))
        return measured(self.blocks, self, self.of(every), self.of(frozenset()))


def blocks(count: int, flops: Sequence[int] | None = None) -> list[Block]:
    sizes = flops or [100] * count
    return [
        Block(f"b{i}", frozenset([f"b{i}.conv1", f"b{i}.conv2"]), sizes[i]) for i in range(count)
    ]


def squares(**points: float) -> Callable[[frozenset[str]], float]:
    """Costs that add up as those of independent roundings do."""
    return lambda stays: math.sqrt(sum(points.get(name, 0.0) ** 2 for name in stays))


def least_flops(landscape: Landscape, max_drop: float) -> int:
    """FLOPs of the best answer there is, by trying all."""
    answers = [
        sum(block.flops for block in some)
        for count in range(len(landscape.blocks) + 1)
        for some in itertools.combinations(landscape.blocks, count)
        if landscape.of(frozenset().union(*(b.layers for b in some))) <= max_drop
    ]
    return min(answers)


def test_blocks_are_the_int8_layers_of_a_module() -> None:
    model = residual_pyramid()
    layers = weighted_layers(model)
    found = blocks_of(layers, place(model).int8)
    assert [block.name for block in found] == list(
        dict.fromkeys(layer.block for layer in layers if layer.name in place(model).int8)
    )
    first = next(block for block in found if block.name == "backbone.bottom_up.res2.0")
    names = {"shortcut", "conv1", "conv2"}
    assert first.layers == {f"backbone.bottom_up.res2.0.{name}" for name in names}
    assert first.flops == sum(layer.flops for layer in layers if layer.name in first.layers)
    assert "sem_seg_head.point_head" not in {block.name for block in found}


def test_a_planted_bad_block_comes_first_and_is_enough() -> None:
    landscape = Landscape(blocks(16), squares(b11=5.0, b3=0.2), FLOOR)
    costs = landscape.costs()
    assert [block.name for block, _ in costs.alone[:2]] == ["b11", "b3"]
    assert costs.alone[0][1] == pytest.approx(math.hypot(5.0, FLOOR))
    choice = chosen(costs, landscape, 0.5)
    assert choice is not None
    assert [block.name for block in choice.blocks] == ["b11"]
    assert choice.layers == {"b11.conv1", "b11.conv2"}
    assert choice.cost == landscape.of(choice.layers) <= 0.5


def test_the_order_of_the_blocks_given_does_not_matter() -> None:
    points = squares(b0=0.9, b4=0.7, b7=0.4)
    forwards, backwards = blocks(8), blocks(8)[::-1]
    found = []
    for each in (forwards, backwards):
        landscape = Landscape(each, points, FLOOR)
        choice = chosen(landscape.costs(), landscape, 0.5)
        assert choice is not None
        found.append(choice.layers)
    assert found[0] == found[1] == {"b0.conv1", "b0.conv2", "b4.conv1", "b4.conv2"}


def test_of_two_equally_costly_blocks_the_cheaper_to_compute_is_left_out() -> None:
    landscape = Landscape(blocks(4, [1000, 10, 10, 10]), squares(b0=0.6, b1=0.6), 0.0)
    choice = chosen(landscape.costs(), landscape, 0.7)
    assert choice is not None
    assert [block.name for block in choice.blocks] == ["b1"]


@pytest.mark.parametrize("seed", range(12))
def test_near_the_best_answer_on_random_landscapes(seed: int) -> None:
    import numpy as np

    random = np.random.default_rng(seed)
    sizes = [int(x) for x in random.integers(10, 200, 10)]
    points = {f"b{i}": float(x) for i, x in enumerate(random.exponential(0.5, 10))}
    landscape = Landscape(blocks(10, sizes), squares(**points), FLOOR)
    costs = landscape.costs()
    limit = FLOOR + float(random.uniform(0.2, 0.9)) * (costs.all - FLOOR)
    landscape.calls = 0
    choice = chosen(costs, landscape, limit)
    assert choice is not None
    assert choice.cost == landscape.of(choice.layers) <= limit
    assert landscape.calls <= most_calls(10)
    left = sum(block.flops for block in choice.blocks)
    assert left - least_flops(landscape, limit) <= 0.2 * sum(sizes)


def test_blocks_that_cost_only_together_are_found_by_measuring_the_whole() -> None:
    def together(stays: frozenset[str]) -> float:
        return 3.0 if {"b2", "b13"} <= stays else 0.0

    landscape = Landscape(blocks(16), together, FLOOR)
    costs = landscape.costs()
    assert {lost for _, lost in costs.alone} == {FLOOR}, "alone, none of them costs anything"
    choice = chosen(costs, landscape, 0.5)
    assert choice is not None
    assert choice.cost <= 0.5
    assert [block.name for block in choice.blocks] in (["b2"], ["b13"])


def test_a_block_that_looks_worst_alone_but_makes_no_difference_is_given_back() -> None:
    def masked(stays: frozenset[str]) -> float:
        """b5 is clipped away by what follows it, unless it stays alone."""
        return 2.0 if stays == {"b5"} else 1.0 if "b6" in stays else 0.0

    landscape = Landscape(blocks(8), masked, FLOOR)
    costs = landscape.costs()
    assert costs.alone[0][0].name == "b5"
    choice = chosen(costs, landscape, 0.5)
    assert choice is not None
    assert [block.name for block in choice.blocks] == ["b6"]


def test_nothing_is_left_out_where_all_of_int8_is_good_enough() -> None:
    landscape = Landscape(blocks(5), squares(b1=0.1), FLOOR)
    costs = landscape.costs()
    landscape.calls = 0
    choice = chosen(costs, landscape, 0.5)
    assert choice is not None
    assert (choice.blocks, choice.cost, landscape.calls) == ((), costs.all, 0)


def test_a_limit_that_not_even_the_rest_meets_has_no_answer() -> None:
    landscape = Landscape(blocks(5), squares(b1=2.0), 1.0)
    assert chosen(landscape.costs(), landscape, 0.9) is None


def test_where_only_leaving_all_out_helps_all_are_left_out() -> None:
    def any_at_all(stays: frozenset[str]) -> float:
        return 1.0 if stays else 0.0

    landscape = Landscape(blocks(7), any_at_all, FLOOR)
    choice = chosen(landscape.costs(), landscape, 0.5)
    assert choice is not None
    assert len(choice.blocks) == 7
    assert choice.cost == FLOOR


@pytest.mark.parametrize("count", [1, 2, 3, 16, 21, 38])
def test_each_block_is_measured_once_and_the_choice_takes_a_few_more(count: int) -> None:
    worst = {f"b{i}": 1.0 + i for i in range(count)}
    landscape = Landscape(blocks(count), squares(**worst), FLOOR)
    costs = landscape.costs()
    assert landscape.calls == count
    landscape.calls = 0
    for limit in (FLOOR, 1.0, costs.all / 2, costs.all * 0.999):
        landscape.calls = 0
        choice = chosen(costs, landscape, limit)
        assert landscape.calls <= most_calls(count) <= 12
        assert choice is None or choice.cost <= limit
