"""What each block costs in INT8, and which blocks to leave out so that little enough is lost.

A block is measured alone: it in INT8, all others not. The other way round, everything in INT8 but
this block, would measure it where it works; but there its share drowns. The noise of independent
roundings adds up in squares, so of N like blocks one alone costs 1 / sqrt(N) of them all, and
leaving one out of them all saves only 1 / (2 N): for 16 blocks an eighth as much, against the same
unrest of the pixels that any change of rounding tips over. On the semantic demonstration model (14
blocks, 16 scenes) all of INT8 cost 3.84 points; the costs of the blocks alone add up to 3.67 in
squares, to 7.45 as they are. Leaving one out seemed to make things worse for 4 of the 14 blocks,
and left out in the order of those savings, more FLOPs had to go for every limit below 1.1 points.

What blocks measured alone cost together is an estimate. So it only gives the order in which blocks
are left out, and every choice is measured as a whole before it is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pointrend_deploy.quantize.layers import WeightedLayer

Cost = Callable[[frozenset[str]], float]
"""Points lost by the graph with these layers left out of INT8."""

GIVING_BACK: Final = 6
"""Measurements spent at most on finding blocks of a choice that need not have been left out."""


@dataclass(frozen=True)
class Block:
    """Layers in INT8 that are left out together.

    Attributes:
        name: a module path, or a part of the network.
        layers: names of nodes.
        flops: of one call of each.
    """

    name: str
    layers: frozenset[str]
    flops: int


@dataclass(frozen=True)
class Costs:
    """Points lost, as measured.

    Attributes:
        none: with no layer in INT8.
        all: with every block in INT8.
        alone: with only this block in INT8, the most costly first.
    """

    none: float
    all: float
    alone: tuple[tuple[Block, float], ...]


@dataclass(frozen=True)
class Choice:
    """Blocks to leave out of INT8.

    Attributes:
        blocks: the first is the one most worth it; empty where nothing has to be left out.
        cost: points lost with these and no others left out, as measured.
    """

    blocks: tuple[Block, ...]
    cost: float

    @property
    def layers(self) -> frozenset[str]:
        """Names of all their layers."""
        return _layers(self.blocks)


def blocks_of(layers: Sequence[WeightedLayer], int8: Collection[str]) -> tuple[Block, ...]:
    """The blocks that have layers in INT8, with these layers, in the order of the graph.

    Args:
        layers: of all graphs.
        int8: names of those in INT8.
    """
    found: dict[str, list[WeightedLayer]] = {}
    for layer in layers:
        if layer.name in int8:
            found.setdefault(layer.block, []).append(layer)
    return tuple(
        Block(name, frozenset(layer.name for layer in each), sum(layer.flops for layer in each))
        for name, each in found.items()
    )


def measured(blocks: Sequence[Block], cost: Cost, none: float, all_int8: float) -> Costs:
    """Measure every block alone: one call of ``cost`` each.

    Args:
        blocks: to measure.
        cost: measures a graph.
        none: what was measured with no layer in INT8.
        all_int8: what was measured with all blocks in INT8.
    """
    every = _layers(blocks)
    alone = [(block, cost(every - block.layers)) for block in blocks]
    return Costs(none, all_int8, tuple(sorted(alone, key=lambda pair: -pair[1])))


def chosen(costs: Costs, cost: Cost, max_drop: float) -> Choice | None:
    """The blocks to leave out so that no more than ``max_drop`` is lost.

    Blocks are put in the order of what each adds to the square of the cost for each of its FLOPs.
    How many of them are needed is found by bisection; then those that turn out not to be needed are
    given back, in groups, the least costly first. Every step is a call of ``cost``, of which
    :func:`most_calls` tells the largest number.

    Args:
        costs: of all blocks.
        cost: measures a graph.
        max_drop: points that may be lost.

    Returns:
        Blocks with which no more than ``max_drop`` was measured; None where more is lost even with
        no layer in INT8.
    """
    if costs.all <= max_drop:
        return Choice((), costs.all)
    if costs.none > max_drop:
        return None
    order = [block for block, _ in sorted(costs.alone, key=lambda pair: -_worth(pair, costs.none))]
    fewer, enough, reached = 0, len(order), costs.none
    while enough - fewer > 1:
        middle = (fewer + enough) // 2
        lost = cost(_layers(order[:middle]))
        if lost <= max_drop:
            enough, reached = middle, lost
        else:
            fewer = middle
    return _without_needless(Choice(tuple(order[:enough]), reached), cost, max_drop)


def most_calls(blocks: int) -> int:
    """The most calls of ``cost`` that :func:`chosen` makes for a number of blocks."""
    return math.ceil(math.log2(max(1, blocks))) + GIVING_BACK


def _worth(pair: tuple[Block, float], none: float) -> float:
    block, lost = pair
    return max(0.0, lost - none) ** 2 / max(1, block.flops)


def _without_needless(choice: Choice, cost: Cost, max_drop: float) -> Choice:
    """Give back blocks of a choice whose last one is known to be needed."""
    waiting = [choice.blocks[:-1]]
    for _ in range(GIVING_BACK):
        group = waiting.pop(0) if waiting else ()
        if not group:
            break
        rest = tuple(block for block in choice.blocks if block not in group)
        lost = cost(_layers(rest))
        if lost <= max_drop:
            choice = Choice(rest, lost)
        elif len(group) > 1:
            half = len(group) // 2
            waiting = [group[half:], group[:half], *waiting]
    return choice


def _layers(blocks: Sequence[Block]) -> frozenset[str]:
    return frozenset(name for block in blocks for name in block.layers)
