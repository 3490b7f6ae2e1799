"""Measure what each block costs in INT8, and choose the blocks to leave out for a limit.

A block is measured alone: only this block in INT8. The alternative, everything but this block in
INT8, shows the block in its final surroundings, but its share drowns in noise. Errors of
independent roundings add up in squares. So one of N equal blocks alone costs 1 / sqrt(N) of all N,
while leaving it out of all N saves only 1 / (2 N): for 16 blocks an eighth as much, with the same
number of pixels flipped at random by any change of rounding. On the semantic demonstration model
(14 blocks, 16 scenes) all of INT8 cost 3.84 points; the costs of single blocks add up to 3.67 in
squares, and to 7.45 linearly. Leaving one out seemed to make things worse for 4 of the 14 blocks,
and in the order of those savings more FLOPs had to be left out for every limit below 1.1 points.

Costs of single blocks only estimate what several cost together. They give the order in which blocks
are left out; every choice is measured as a whole before it is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pointrend_deploy.quantize.layers import WeightedLayer

Cost = Callable[[frozenset[str]], float]
"""Function that returns the points (percent) lost by the graph with these layers not in INT8."""

GIVING_BACK: Final = 6
"""Most measurements spent on returning blocks to INT8 that need not be left out."""


@dataclass(frozen=True)
class Measure:
    """What a point is, for the terminal.

    Attributes:
        points: definition of the points lost.
        caveat: what the points are not.
        note: why figures on these pictures say little; empty if nothing is known against them.
    """

    points: str
    caveat: str
    note: str = ""


@dataclass(frozen=True)
class Block:
    """INT8 layers that are left out together.

    Attributes:
        name: module path of the block, or name of a part of the network.
        layers: names of its nodes.
        flops: FLOPs of one call of each layer, in sum.
    """

    name: str
    layers: frozenset[str]
    flops: int


@dataclass(frozen=True)
class Costs:
    """Measured costs, in points (percent) lost.

    Attributes:
        none: points lost with no layer in INT8.
        all: points lost with every block in INT8.
        alone: each block with the points lost with only this block in INT8, most costly first.
    """

    none: float
    all: float
    alone: tuple[tuple[Block, float], ...]


@dataclass(frozen=True)
class Choice:
    """Blocks to leave out of INT8.

    Attributes:
        blocks: the blocks, that with the most points per FLOP first; empty if none has to go.
        cost: measured points lost with exactly these blocks left out.
    """

    blocks: tuple[Block, ...]
    cost: float

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers of all blocks."""
        return _layers(self.blocks)


def blocks_of(layers: Sequence[WeightedLayer], int8: Collection[str]) -> tuple[Block, ...]:
    """Group INT8 layers into blocks, in the order of the graph.

    Args:
        layers: the layers of all graphs.
        int8: names of the layers in INT8; others are ignored.
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
    """Measure every block alone, with one call of ``cost`` each.

    Args:
        blocks: blocks to measure.
        cost: measures a graph.
        none: points lost with no layer in INT8.
        all_int8: points lost with all blocks in INT8.
    """
    every = _layers(blocks)
    alone = [(block, cost(every - block.layers)) for block in blocks]
    return Costs(none, all_int8, tuple(sorted(alone, key=lambda pair: -pair[1])))


def chosen(costs: Costs, cost: Cost, max_drop: float) -> Choice | None:
    """Choose the blocks to leave out so that at most ``max_drop`` points are lost.

    Blocks are sorted by what each adds to the square of the cost per FLOP. Bisection finds how many
    of them are needed. Blocks that turn out not to be needed then return to INT8, in groups, the
    least costly first. Every step is one call of ``cost``; :func:`most_calls` gives their largest
    number.

    Args:
        costs: the costs of all blocks.
        cost: measures a graph.
        max_drop: points that may be lost.

    Returns:
        A choice for which at most ``max_drop`` was measured; None if more is lost even with no
        layer in INT8.
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
    """Return the largest number of calls of ``cost`` that :func:`chosen` makes for some blocks."""
    return math.ceil(math.log2(max(1, blocks))) + GIVING_BACK


def _worth(pair: tuple[Block, float], none: float) -> float:
    block, lost = pair
    return max(0.0, lost - none) ** 2 / max(1, block.flops)


def _without_needless(choice: Choice, cost: Cost, max_drop: float) -> Choice:
    """Return blocks to INT8 that a choice does not need; its last block is known to be needed."""
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
