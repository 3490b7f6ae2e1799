"""The instance point head as the graph computes it: one plane, point by point.

Exact rewrites of ``StandardPointHead`` followed by ``of_class``, up to rounding:

- class first: of the predictor only the predicted class's row is read;
- sample after projecting, for the fine part of the first layer;
- coarse once: (W_c * coarse) * weights for the coarse part of every layer, see instance_cost.py;
- the bilinear weights of the coarse cells are products of two hat functions, not samples.

Values are (points, channels): a layer is one product with a constant matrix on the right, which
runtimes pack once, and the product of the coarse part is what it adds to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import ProjectionPlan
from pointrend_deploy.graph.instance_samples import hats
from pointrend_deploy.graph.ops import sample
from pointrend_deploy.model.point_head import StandardPointHead


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
        layers = [head.get_submodule(f"fc{n + 1}") for n in range(head.num_fc)]
        self.joins = [n == 0 or head.coarse_in_every_layer for n in range(head.num_fc + 1)]
        own = sum(fine_channels)
        for number, layer in enumerate([*layers, head.predictor]):
            if not isinstance(layer, nn.Conv1d) or layer.bias is None:
                raise DeployError(f"layer {number} of a point head is a Conv1d with a bias")
            # (inputs, outputs): points are rows.
            weight = layer.weight.detach()[:, :, 0].t()
            direct = weight[:own]
            if number == 0:
                direct = self._cut_fine(direct, fine_channels)
            self.register_buffer(f"own{number}", direct.contiguous())
            self.register_buffer(f"coarse{number}", weight[own:].contiguous())
            self.register_buffer(f"bias{number}", layer.bias.detach().unsqueeze(0))
            own = weight.shape[1]

    def _cut_fine(self, weight: Tensor, fine_channels: Sequence[int]) -> Tensor:
        """Keep the projected maps' weights apart; give back the others'."""
        left = [weight[:0]]
        pieces = torch.split(weight, list(fine_channels))
        for index, (piece, cut) in enumerate(zip(pieces, self.plan.fine, strict=True)):
            if cut:
                self.register_buffer(f"fine{index}", piece.contiguous())
            else:
                left.append(piece)
        return torch.cat(left)

    def prepare(self, fine: Sequence[Tensor]) -> list[Tensor]:
        """Fine maps to sample, (1, C, h, w) each, as cells (h * w, C'), projected or as they are.

        A product, not a 1x1 convolution: ONNX Runtime would bring the map into its blocked layout
        and back, two copies of the map.
        """
        tables = []
        for index, (each, cut) in enumerate(zip(fine, self.plan.fine, strict=True)):
            cells = each.reshape(each.shape[1], -1).t()
            tables.append(cells @ self.get_buffer(f"fine{index}") if cut else cells)
        return tables

    def weights(self, coarse: Tensor, classes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What every layer multiplies its inputs by, and what it multiplies :meth:`beside` by.

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
                own, part, bias = (
                    _column(each, classes) for each in (own.unsqueeze(0), part, bias)
                )
            if self.joins[number]:
                if self.plan.coarse:
                    part = cells @ part
                bias = torch.cat((part, bias.expand(part.shape[0], -1, -1)), dim=1)
            found.append((own, bias))
        return found

    def beside(self, coarse: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """What joins the layers at points of the boxes.

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
        """Logits of the predicted class, less what :meth:`last` adds to them.

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


def _column(weight: Tensor, classes: Tensor) -> Tensor:
    """The column of every RoI's class, or the only one: (1, K, C or 1) -> (R or 1, K, 1)."""
    if weight.shape[2] == 1:
        return weight
    return weight[0].index_select(1, classes).t().unsqueeze(2)
