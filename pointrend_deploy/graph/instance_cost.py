"""Counted cost of the instance point head's exact rewrites, and the choice between them.

Counting is that of :mod:`pointrend_deploy.graph.cost`. Two products can be moved:

- fine: W_f * sample(F) = sample(W_f * F), paid once a cell of the map, not once a point;
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

from pointrend_deploy.graph.cost import SAMPLE_FLOPS, ProjectionPlan, part_flops

WORTH: Final = 0.8
"""Largest share of the products at the points that a projected fine map may cost.

It is held for the whole run beside the map itself: 62 MB for a p2 of 200 x 304.
"""


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


def coarse_flops(work: InstanceWork, projected: bool) -> int:
    """FLOPs of the coarse part of all layers: sampling and products."""
    columns = work.coarse_cells if projected else work.classes
    point = 2 * columns * work.coarse_rows + SAMPLE_FLOPS * columns
    once = 2 * work.coarse_cells * work.classes * work.coarse_rows if projected else 0
    return work.rois * (work.points * point + once)


def plan_instance(work: InstanceWork, worth: float = WORTH) -> ProjectionPlan:
    """What is projected: fine maps where it is worth it, coarse logits where it is cheaper.

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
