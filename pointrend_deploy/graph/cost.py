"""Counted cost of the point head's exact rewrites, and the choice between them.

Bilinear sampling is linear and acts on each channel alone, so a layer's product can be taken
before it: W * sample(F) = sample(W * F). Before, the product is paid once a cell of the map; after,
once a point. Counted in floating point operations, a multiply-add as two, sampling as eight a
channel and point (four weights, four additions).
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_FLOPS = 8


@dataclass(frozen=True)
class PointWork:
    """Sizes the choice depends on, for one picture.

    Attributes:
        fine: (channels, cells) of each fine feature map.
        coarse: (classes, cells) of the coarse logits.
        width: channels of a hidden layer.
        hidden_layers: ``num_fc``.
        coarse_in_every_layer: coarse logits join every layer.
        points: points of all steps together.
    """

    fine: tuple[tuple[int, int], ...]
    coarse: tuple[int, int]
    width: int
    hidden_layers: int
    coarse_in_every_layer: bool
    points: int


@dataclass(frozen=True)
class ProjectionPlan:
    """Which maps meet the weights before sampling: each fine map, and the coarse logits."""

    fine: tuple[bool, ...]
    coarse: bool

    @property
    def any(self) -> bool:
        """Whether anything is projected at all."""
        return self.coarse or any(self.fine)


def part_flops(channels: int, width: int, cells: int, points: int, projected: bool) -> int:
    """FLOPs of one map's part of one layer: product and sampling."""
    if projected:
        return 2 * cells * channels * width + SAMPLE_FLOPS * points * width
    return 2 * points * channels * width + SAMPLE_FLOPS * points * channels


def plan_projection(work: PointWork) -> ProjectionPlan:
    """The cheaper side for each map, by :func:`part_flops`; sampling first where they are equal."""

    def pays(channels: int, cells: int, width: int) -> bool:
        before = part_flops(channels, width, cells, work.points, projected=True)
        return before < part_flops(channels, width, cells, work.points, projected=False)

    classes, cells = work.coarse
    coarse_width = work.width * work.hidden_layers + classes
    if not work.coarse_in_every_layer:
        coarse_width = work.width
    return ProjectionPlan(
        fine=tuple(pays(channels, size, work.width) for channels, size in work.fine),
        coarse=pays(classes, cells, coarse_width),
    )


def point_head_flops(work: PointWork, plan: ProjectionPlan) -> int:
    """FLOPs of sampling and of the whole point head over all points of one picture."""
    classes, cells = work.coarse
    total = 0
    for (channels, size), projected in zip(work.fine, plan.fine, strict=True):
        total += part_flops(channels, work.width, size, work.points, projected)
    hidden = 2 * work.points * work.width * work.width * (work.hidden_layers - 1)
    total += hidden + 2 * work.points * work.width * classes
    width = work.width * (work.hidden_layers if work.coarse_in_every_layer else 1)
    width += classes if work.coarse_in_every_layer else 0
    return total + part_flops(classes, width, cells, work.points, plan.coarse)
