"""Point logits of the predicted classes as the graph computes them: one plane, point by point.

Exact rewrites of ``StandardPointHead`` followed by ``of_class``, up to rounding:

- class first: of the predictor only the predicted class's row is read;
- sample after projecting, for the fine part of the first layer;
- coarse once: (W_c * coarse) * weights for the coarse part of every layer, see graph/cost.py;
- the bilinear weights of the coarse cells are products of two hat functions, not samples.

Values are (points, channels): a layer is one product with a constant matrix on the right, which
runtimes pack once, and the product of the coarse part is what it adds to.

:class:`InstancePointHead` has the layers, :class:`PointLogits` decides which points of which RoIs
go through them together: coordinates, coarse weights and answers are of all RoIs, the rows of the
fine maps and the layers of some RoIs at a time, whose values then stay in a CPU's caches.

The functions at the end sample. :func:`neighbours` and :func:`gather` are PointRendSample written
out in standard ops for points that are rows (cell centres at (i + 0.5) / size, zeros outside): ONNX
Runtime's GridSample walks every channel's plane over all points, a value at a time, while rows of
a (cells, channels) table are copied whole and weighted by one small product a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import ProjectionPlan
from pointrend_deploy.graph.ops import integer_quotient, sample
from pointrend_deploy.model.pointrend import StandardPointHead

GATHERED_FROM: Final = 32
"""Fewest RoIs for which rows are gathered: the table is a copy of the map, too much for fewer."""


class InstancePointHead(nn.Module):
    """The point head for R RoIs at a time.

    Args:
        head: the reference head.
        fine_channels: channels of each fine map, in order.
        side: of the coarse logits.
        plan: which maps are projected.

    Raises:
        DeployError: the head's layers are not those of a point head.
    """

    def __init__(
        self,
        head: StandardPointHead,
        fine_channels: Sequence[int],
        side: int,
        plan: ProjectionPlan,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.hidden = head.num_fc
        self.side = side
        self.joins = [n == 0 or head.coarse_in_every_layer for n in range(head.num_fc + 1)]
        own = sum(fine_channels)
        for number, (weight, bias) in enumerate(layers_of(head)):
            direct = weight[:own]
            if number == 0:
                direct = self._cut_fine(direct, fine_channels)
            self.register_buffer(f"own{number}", direct.contiguous())
            self.register_buffer(f"coarse{number}", weight[own:].contiguous())
            self.register_buffer(f"bias{number}", bias.unsqueeze(0))
            own = weight.shape[1]

    def _cut_fine(self, weight: Tensor, fine_channels: Sequence[int]) -> Tensor:
        """Register the weights of the projected maps; return those of the others."""
        left = [weight[:0]]
        pieces = torch.split(weight, list(fine_channels))
        for index, (piece, cut) in enumerate(zip(pieces, self.plan.fine, strict=True)):
            if cut:
                self.register_buffer(f"fine{index}", piece.contiguous())
            else:
                left.append(piece)
        return torch.cat(left)

    def prepare(self, fine: Sequence[Tensor]) -> list[Tensor]:
        """Turn fine maps (1, C, h, w) into cells (h * w, C'), projected where the plan says so.

        A product, not a 1x1 convolution: ONNX Runtime would bring the map into its blocked layout
        and back, two copies of the map.
        """
        tables = []
        for index, (each, cut) in enumerate(zip(fine, self.plan.fine, strict=True)):
            cells = each.reshape(each.shape[1], -1).t()
            tables.append(cells @ self.get_buffer(f"fine{index}") if cut else cells)
        return tables

    def weights(self, coarse: Tensor, classes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute, for every layer, the weights of its inputs and those of :meth:`beside`.

        Args:
            coarse: (R, C, side, side).
            classes: (R,) int64.

        Returns:
            The layer's own part (K, O), of the last layer (R, K, 1) or (1, K, 1); and the rows of
            the coarse part where it joins, then of the bias: (R, J, O), or (1, J, O) where
            nothing in them depends on the RoI.
        """
        cells = coarse.flatten(2).transpose(1, 2)
        found = []
        for number in range(self.hidden + 1):
            own = self.get_buffer(f"own{number}")
            part = self.get_buffer(f"coarse{number}").unsqueeze(0)
            bias = self.get_buffer(f"bias{number}").unsqueeze(0)
            if number == self.hidden:
                own, part, bias = (column(each, classes) for each in (own.unsqueeze(0), part, bias))
            if self.joins[number]:
                if self.plan.coarse:
                    part = cells @ part
                bias = torch.cat((part, bias.expand(part.shape[0], -1, -1)), dim=1)
            found.append((own, bias))
        return found

    def beside(self, coarse: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Compute the values that join the layers at points of the boxes.

        Args:
            coarse: (R, C, side, side).
            x: (R, P) or, the same for every RoI, (1, P); in [0, 1] of the box.
            y: likewise.

        Returns:
            (R or 1, side**2 + 1 or C + 1, P): bilinear weights of the coarse cells, or the coarse
            logits sampled; and a row of ones.
        """
        if self.plan.coarse:
            columns, rows = hats(x, self.side), hats(y, self.side)
            found = (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1, 2)
        else:
            points = torch.stack((x, y), dim=-1).expand(coarse.shape[0], -1, -1)
            found = sample(coarse, points)
        return torch.cat((found, torch.ones_like(found[:, :1])), dim=1)

    def forward(
        self, fine: list[Tensor], beside: Tensor, weights: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Compute the logits of the predicted class, without the part that :meth:`last` adds.

        Args:
            fine: the prepared maps sampled, (R * P, C) each.
            beside: of :meth:`beside`.
            weights: of :meth:`weights`.

        Returns:
            (R, P, 1).
        """
        turned = beside.transpose(1, 2)
        inputs = [f for f, cut in zip(fine, self.plan.fine, strict=True) if not cut]
        added = [f for f, cut in zip(fine, self.plan.fine, strict=True) if cut]
        for number, (own, part) in enumerate(weights[:-1]):
            x = (turned @ part).flatten(0, 1) if self.joins[number] else part[0]
            if inputs:
                x = torch.addmm(x, torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0], own)
            for each in added:
                x = x + each
            inputs, added = [F.relu(x)], []
        own, _ = weights[-1]
        rows = inputs[0].reshape(-1, beside.shape[2], inputs[0].shape[1])
        return rows @ own

    def last(self, beside: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The coarse part and the bias of the predictor: (R or 1, 1, P or 1)."""
        _, part = weights[-1]
        if not self.joins[-1]:
            return part
        return part.transpose(1, 2) @ beside


def layers_of(head: StandardPointHead) -> list[tuple[Tensor, Tensor]]:
    """Weights (inputs, outputs) and biases (outputs,) of the hidden layers and the predictor.

    Raises:
        DeployError: the head's layers are not those of a point head.
    """
    found = []
    layers = [head.get_submodule(f"fc{number + 1}") for number in range(head.num_fc)]
    for number, layer in enumerate([*layers, head.predictor]):
        if not isinstance(layer, nn.Conv1d) or layer.bias is None:
            raise DeployError(f"layer {number} of a point head is a Conv1d with a bias")
        found.append((layer.weight.detach()[:, :, 0].t(), layer.bias.detach()))
    return found


def column(weight: Tensor, classes: Tensor) -> Tensor:
    """The column of every RoI's class, or the only one: (1, K, C or 1) -> (R or 1, K, 1)."""
    if weight.shape[2] == 1:
        return weight
    return weight[0].index_select(1, classes).t().unsqueeze(2)


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
        """Cut a value of all RoIs into groups; a value common to all RoIs goes to each group."""
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


def pays(rois: int, feature_hw: Sequence[tuple[int, int]]) -> bool:
    """Whether a graph without plugins should gather rows for that many RoIs on these maps."""
    return rois >= GATHERED_FROM and min(map(min, feature_hw)) > 1


def centres(indices: Tensor, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return x and y in [0, 1] of a square grid's cells, given by flat index (int64)."""
    rows = integer_quotient(indices, side)
    columns = indices - rows * side
    step = 1.0 / side
    return columns.to(dtype) * step + step / 2.0, rows.to(dtype) * step + step / 2.0


def hats(position: Tensor, size: int) -> Tensor:
    """Compute linear weights of an axis's cells at positions in [0, 1]: (R, P) -> (R, size, P).

    The hat function of a cell is 1 at its centre and 0 a cell away, so beyond the outer centres
    the weights sum to less than 1: values outside the map count as zero.
    """
    cells = torch.arange(size, device=position.device).to(position.dtype).unsqueeze(1)
    return F.relu(1.0 - (position.unsqueeze(1) * size - 0.5 - cells).abs())


def neighbours(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find the four cells around points of a map, and their bilinear weights.

    Args:
        x: (R, P), in cells: 0 is the first column's left edge.
        y: likewise.
        height: of the map, at least 2.
        width: of the map, at least 2.

    Returns:
        Flat indices (R, P, 4) int64, always cells of the map, and weights (R, P, 1, 4): 0 where
        the neighbour the point would have had lies outside.
    """
    left, across = _pair(x, width)
    top, down = _pair(y, height)
    first = top * width + left
    cells = torch.stack((first, first + 1, first + width, first + (width + 1)), dim=-1)
    weights = torch.stack([v * h for v in down for h in across], dim=-1)
    return cells, weights.unsqueeze(2)


def _pair(position: Tensor, size: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of two neighbouring cells of an axis, and the hat functions of both.

    Off the map the pair is the outermost one: one hat is cut by the border, the other is 0.
    """
    centred = position - 0.5
    first = centred.clamp(0.0, float(size - 2)).to(torch.int64)
    offset = centred - first.to(position.dtype)
    return first, (F.relu(1.0 - offset.abs()), F.relu(1.0 - (offset - 1.0).abs()))


def gather(table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """Blend rows of a table (cells, C) at the cells of :func:`neighbours`: (R * P, C)."""
    rows = F.embedding(cells, table)
    return (weights @ rows).flatten(0, 2)
