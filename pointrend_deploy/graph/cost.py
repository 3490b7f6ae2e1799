"""FLOPs of the point head's exact rewrites, and the choice between them.

Bilinear sampling is linear and acts on each channel alone, so a layer's product can be taken
before it: W * sample(F) = sample(W * F). Before sampling the product is paid once a cell of the
map; after it, once a point. FLOPs are counted with a multiply-add as two and sampling as eight a
channel and point (four weights, four additions).

Semantic (:func:`plan_projection`): each fine map and the coarse logits go to the cheaper side.

Instances (:func:`plan_instance`) have R RoIs on one fine map, each with coarse logits of its own:

- fine: as above, but a projected map is kept in memory for the whole run, so it has to pay by a
  margin, :data:`WORTH`;
- coarse: sampling R x C x side x side logits at P points is a product with a (side**2, P) matrix
  of bilinear weights, so W_c * sample(coarse) = (W_c * coarse) * weights. The bracket is paid once
  a cell and RoI, and what is left has side**2 columns (49) in place of C (80).

Sampling W_c * coarse itself would be fewer FLOPs still, but it reads and writes as many values a
point as all layers have channels together (769): in ONNX Runtime that took several times as long
as the products with 49 columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SAMPLE_FLOPS = 8
WORTH: Final = 0.8
"""Largest share of the products at the points that a projected fine map may cost.

It stays in memory for the whole run beside the map itself: 62 MB for a p2 of 200 x 304.
"""


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
    """Count FLOPs of one map's part of one layer: product and sampling."""
    if projected:
        return 2 * cells * channels * width + SAMPLE_FLOPS * points * width
    return 2 * points * channels * width + SAMPLE_FLOPS * points * channels


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


def plan_projection(work: PointWork) -> ProjectionPlan:
    """Choose the cheaper side for each map by :func:`part_flops`; sampling first on a tie."""

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


@dataclass(frozen=True)
class InstanceWork:
    """Sizes the choice depends on, for one picture.

    Attributes:
        fine: (channels, cells) of each fine feature map.
        classes: channels of the coarse logits.
        coarse_cells: cells of the coarse logits of one RoI.
        width: channels of a hidden layer.
        hidden_layers: ``num_fc``.
        coarse_in_every_layer: coarse logits join every layer.
        rois: R.
        points: points of one RoI, all passes together.
    """

    fine: tuple[tuple[int, int], ...]
    classes: int
    coarse_cells: int
    width: int
    hidden_layers: int
    coarse_in_every_layer: bool
    rois: int
    points: int

    @property
    def coarse_rows(self) -> int:
        """Output channels of all layers the coarse logits join; the predictor has one."""
        if not self.coarse_in_every_layer:
            return self.width
        return self.width * self.hidden_layers + 1


def plan_instance(work: InstanceWork, worth: float = WORTH) -> ProjectionPlan:
    """Choose what to project: fine maps if that pays by a margin, coarse logits if it is cheaper.

    Args:
        work: sizes.
        worth: largest share of the products at the points that a projected fine map may cost.
    """
    points = work.rois * work.points

    def pays(channels: int, cells: int) -> bool:
        before = part_flops(channels, work.width, cells, points, projected=True)
        after = part_flops(channels, work.width, cells, points, projected=False)
        return before <= worth * after

    return ProjectionPlan(
        fine=tuple(pays(channels, cells) for channels, cells in work.fine),
        coarse=coarse_flops(work, projected=True) < coarse_flops(work, projected=False),
    )


def coarse_flops(work: InstanceWork, projected: bool) -> int:
    """Count FLOPs of the coarse part of all layers: sampling and products."""
    columns = work.coarse_cells if projected else work.classes
    point = 2 * columns * work.coarse_rows + SAMPLE_FLOPS * columns
    once = 2 * work.coarse_cells * work.classes * work.coarse_rows if projected else 0
    return work.rois * (work.points * point + once)


def hands_logits_on(classes: int, width: int, later_layers: int) -> bool:
    """Whether an engine's layers hand on the coarse logits, not the layers' own coarse parts.

    What is handed on is read and written with every layer, so the fewer channels are better: C with
    every layer but the last, or the width of a layer for each layer that is still to come.

    Args:
        classes: C.
        width: channels of a hidden layer.
        later_layers: hidden layers after the first.
    """
    return classes * later_layers <= width * later_layers * (later_layers + 1) // 2
