"""Point logits of all RoIs at once, for engines: few layers, and few bytes between them.

The same function as points.py, whose shape is that of a CPU: RoIs in small groups, whose values
stay in its caches. On a GPU a layer's time is mostly that of the bytes it reads and writes, so here
all RoIs of all pictures are one tensor of rows, a row a point:

- PointRendSampleRoIs (sample_rois.py) gives the first hidden layer of every point: the projected
  feature map and the projected coarse logits, sampled, added to the bias and rectified;
- a further layer is one product with a constant matrix. Its coarse part would be a product and an
  addition of its own: two more tensors as large as the layer. Therefore the sampler also writes
  what that part needs, in channels beside the first layer. The matrices hand these channels on
  unchanged up to the last layer that needs them. The ReLU becomes a maximum with one bound a
  channel, and the bound of these channels is the lowest number there is;
- the predictor's coarse part is a sum over a few cells of one plane, computed where the logits are.

What is handed on are the coarse logits or, where the classes are too many, the coarse parts of the
layers: see :func:`~pointrend_deploy.graph.cost.hands_logits_on`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.graph.cost import hands_logits_on
from pointrend_deploy.graph.instance.points import column, hats, layers_of
from pointrend_deploy.graph.instance.sample_rois import sample_rois
from pointrend_deploy.model.pointrend import StandardPointHead

ALIGNED: Final = 8
"""Rows have a multiple of this many channels: 16 bytes in FP16, as GPUs read them."""
LOWEST: Final = -65504.0
"""Bound of a channel that is handed on: FP16's lowest number, the same in every precision."""


class RowPointHead(nn.Module):
    """The point head for all RoIs at once, on one feature map.

    Args:
        head: the reference head.
        fine_channels: channels of the feature map.
        side: of the coarse logits.

    Raises:
        DeployError: the head's layers are not those of a point head.
    """

    def __init__(self, head: StandardPointHead, fine_channels: int, side: int) -> None:
        super().__init__()
        self.side, self.joins = side, head.coarse_in_every_layer
        (first, bias), *later, (predictor, last_bias) = layers_of(head)
        width, classes = first.shape[1], first.shape[0] - fine_channels
        parts = [weight[width:] for weight, _ in later] if self.joins else []
        handed, blocks = handing_on(parts, classes, hands_logits_on(classes, width, len(parts)))
        coarse = torch.cat((first[fine_channels:], handed.to(first)), dim=1)
        self.register_buffer("fine", first[:fine_channels].contiguous())
        self.register_buffer("coarse", aligned(coarse, 1))
        self.register_buffer("bias", bias)
        self.later = len(later)
        for number, (weight, bias) in enumerate(later):
            block = blocks[number].to(weight) if blocks else weight[:0]
            beyond = block.shape[1] - width
            joined = torch.cat((F.pad(weight[:width], (0, beyond)), block))
            bound = F.pad(torch.zeros_like(bias), (0, beyond), value=LOWEST)
            self.register_buffer(f"weight{number}", aligned(joined, 0, 1))
            self.register_buffer(f"bias{number}", aligned(F.pad(bias, (0, beyond)), 0))
            self.register_buffer(f"bound{number}", aligned(bound, 0) if beyond else None)
        self.register_buffer("predictor", predictor[:width].contiguous())
        self.register_buffer("predictor_coarse", predictor[width:].contiguous())
        self.register_buffer("predictor_bias", last_bias.unsqueeze(0))

    def table(self, fine: Tensor) -> Tensor:
        """The feature map (N, C, h, w) projected, channels last: (N, h, w, width)."""
        rows = fine.flatten(2).transpose(1, 2) @ self.get_buffer("fine")
        return torch.unflatten(rows, 1, fine.shape[2:])

    def cells(self, coarse: Tensor) -> Tensor:
        """Coarse logits (R, C, side, side) -> the first layer's part and what is handed on.

        Returns:
            (R, side, side, D).
        """
        logits = coarse.flatten(2).transpose(1, 2)
        return torch.unflatten(logits @ self.get_buffer("coarse"), 1, coarse.shape[2:])

    def plane(self, coarse: Tensor, classes: Tensor) -> tuple[Tensor | None, Tensor]:
        """The predictor's coarse part of the predicted classes, and its bias.

        Args:
            coarse: (R, C, side, side).
            classes: (R,) int64.

        Returns:
            (R, side, side), or None where the coarse logits do not join; and (R or 1, 1).
        """
        bias = column(self.get_buffer("predictor_bias").unsqueeze(0), classes)[:, :, 0]
        if not self.joins:
            return None, bias
        weight = column(self.get_buffer("predictor_coarse").unsqueeze(0), classes)
        return (weight.unsqueeze(3) * coarse).sum(dim=1), bias

    def forward(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Compute the logits of the predicted class, without the part of :meth:`plane`.

        Args:
            rows: (R, P, D), of PointRendSampleRoIs.
            classes: (R,) int64.

        Returns:
            (R, P).
        """
        rois, points = rows.shape[:2]
        x = rows.flatten(0, 1)
        for number in range(self.later):
            x = torch.addmm(self.get_buffer(f"bias{number}"), x, self.get_buffer(f"weight{number}"))
            bound = self._buffers[f"bound{number}"]
            x = F.relu(x) if bound is None else torch.maximum(x, bound)
        # A product of rows and one column would be padded to two columns and read a copy of x.
        own = column(self.get_buffer("predictor").unsqueeze(0), classes).transpose(1, 2)
        found: Tensor = (torch.unflatten(x, 0, (rois, points)) * own).sum(dim=2)
        return found


class RowLogits:
    """Logits of the predicted classes at points of the boxes of some pictures.

    Args:
        head: the point head.
        boxes: (R, 4) in pixels of the network input, R / N of each picture in turn.
        classes: (R,) int64.
        coarse: (R, C, side, side).
        fine: the feature map, (N, C, h, w).
        stride: of the map.
    """

    def __init__(
        self,
        head: RowPointHead,
        boxes: Tensor,
        classes: Tensor,
        coarse: Tensor,
        fine: Tensor,
        stride: int,
    ) -> None:
        height, width = fine.shape[2:]
        extent = boxes.new_tensor([width * stride, height * stride] * 2)
        self.head, self.classes = head, classes
        self.boxes = boxes / extent
        self.table, self.cells = head.table(fine), head.cells(coarse)
        self.plane, self.bias = head.plane(coarse, classes)

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits (R, 1, P) at points (R or 1, P), in [0, 1] of the boxes."""
        points = torch.stack((x, y), dim=-1).expand(self.boxes.shape[0], -1, -1)
        bias = self.head.get_buffer("bias")
        rows = sample_rois(self.table, self.cells, bias, self.boxes, points)
        found: Tensor = self.head(rows, self.classes) + self.bias
        if self.plane is not None:
            columns, lines = hats(x, self.head.side), hats(y, self.head.side)
            weights = lines.unsqueeze(2) * columns.unsqueeze(1)
            found = found + (self.plane.unsqueeze(3) * weights).sum(dim=(1, 2))
        return found.unsqueeze(1)


def handing_on(parts: Sequence[Tensor], classes: int, whole: bool) -> tuple[Tensor, list[Tensor]]:
    """What the sampler writes beside the first layer, and how each later layer uses it.

    Args:
        parts: weights (C, width) of the coarse part of each later layer that has one.
        classes: C.
        whole: hand on the coarse logits; else the layers' coarse parts.

    Returns:
        Weights (C, H) from the coarse logits to what is handed on, and for each layer the block
        (H_before, width + H_after) of its matrix: the first columns say what is added to the layer,
        the others what is handed on.
    """
    blocks = []
    for number, part in enumerate(parts):
        left = len(parts) - number
        if whole:
            kept = torch.eye(classes if left > 1 else 0, classes).t().to(part)
            blocks.append(torch.cat((part, kept), dim=1))
        else:
            # The parts of the layers that are left, this layer's first: it is added as it is.
            blocks.append(torch.eye(left * part.shape[1]).to(part))
    if whole and parts:
        return torch.eye(classes).to(parts[0]), blocks
    return torch.cat((torch.zeros(classes, 0), *parts), dim=1), blocks


def aligned(weight: Tensor, *axes: int) -> Tensor:
    """Append zeros to axes of a weight until their lengths are multiples of :data:`ALIGNED`."""
    padding = [0, 0] * weight.dim()
    for axis in axes:
        padding[2 * (weight.dim() - axis) - 1] = -weight.shape[axis] % ALIGNED
    return F.pad(weight, padding).contiguous()
