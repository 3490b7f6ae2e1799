"""Point logits of the predicted classes: where points are, in boxes, groups of RoIs and maps.

Coordinates, coarse weights and the answers are of all RoIs together; the rows of the fine maps and
the layers are of some RoIs at a time, whose values then stay in a CPU's caches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend_deploy.graph.instance_points import InstancePointHead
from pointrend_deploy.graph.instance_samples import gather, neighbours
from pointrend_deploy.graph.ops import integer_quotient, sample


class PointLogits:
    """Logits of the predicted classes at points of the boxes of one picture.

    Args:
        head: the point head.
        boxes: (R, 4) in pixels of the network input.
        classes: (R,) int64.
        coarse: (R, C, side, side).
        fine: the point head's maps, (1, C, h, w) each.
        strides: of the maps.
        groups: RoIs in each group; one group may be of any number of RoIs.
        gathered: rows are gathered, not sampled by PointRendSample.
    """

    def __init__(
        self,
        head: InstancePointHead,
        boxes: Tensor,
        classes: Tensor,
        coarse: Tensor,
        fine: Sequence[Tensor],
        strides: Sequence[int],
        groups: Sequence[int],
        gathered: bool,
    ) -> None:
        self.head, self.groups, self.gathered = head, list(groups), gathered
        self.boxes, self.coarse, self.strides = boxes, coarse, strides
        self.sizes = [(int(each.shape[2]), int(each.shape[3])) for each in fine]
        self.tables = self.head.prepare(fine)
        self.weights = self.head.weights(coarse, classes)
        some = [zip(self._some(own), self._some(part), strict=True) for own, part in self.weights]
        self.some_weights = list(zip(*some, strict=True))

    def _some(self, value: Tensor) -> list[Tensor]:
        """A value of all RoIs cut into groups; what all have in common is given to each."""
        if len(self.groups) == 1:
            return [value]
        if value.dim() < 3 or value.shape[0] == 1:
            return [value] * len(self.groups)
        return list(torch.split(value, self.groups))

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits (R, 1, P) at points (R or 1, P), in [0, 1] of the boxes."""
        beside = self.head.beside(self.coarse, x, y)
        sampled = list(zip(*self._samples(x, y), strict=True))
        groups = zip(sampled, self._some(beside), self.some_weights, strict=True)
        found = [self.head(list(fine), some, list(weights)) for fine, some, weights in groups]
        own = torch.cat(found) if len(found) > 1 else found[0]
        return own.transpose(1, 2) + self.head.last(beside, self.weights)

    def _samples(self, x: Tensor, y: Tensor) -> list[list[Tensor]]:
        """Rows (R * P, C) of every prepared map, group by group."""
        corner, far = self.boxes[:, :2], self.boxes[:, 2:]
        size = far - corner
        x = x * size[:, :1] + corner[:, :1]
        y = y * size[:, 1:] + corner[:, 1:]
        found = []
        for table, stride, hw in zip(self.tables, self.strides, self.sizes, strict=True):
            if self.gathered:
                cells, weights = neighbours(x / stride, y / stride, *hw)
                groups = zip(self._some(cells), self._some(weights), strict=True)
                found.append([gather(table, some, weight) for some, weight in groups])
                continue
            height, width = hw
            plane = table.t().reshape(1, -1, height, width)
            points = torch.stack((x / (stride * width), y / (stride * height)), dim=-1)
            found.append([_rows(plane, some) for some in self._some(points)])
        return found


def _rows(plane: Tensor, points: Tensor) -> Tensor:
    """A map (1, C, h, w) sampled at (R, P, 2): rows (R * P, C)."""
    return sample(plane, points.reshape(1, -1, 2))[0].t()


def centres(indices: Tensor, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Columns and rows of a square grid's cells given by flat index, as x and y in [0, 1]."""
    rows = integer_quotient(indices, side)
    columns = indices - rows * side
    step = 1.0 / side
    return columns.to(dtype) * step + step / 2.0, rows.to(dtype) * step + step / 2.0
