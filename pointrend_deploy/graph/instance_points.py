"""The instance point head as the graph computes it: one plane, and one product a layer.

Exact rewrites of ``StandardPointHead`` followed by ``of_class``, up to rounding:

- class first: of the predictor only the predicted class's row is read;
- sample after projecting, for the fine part of the first layer;
- coarse once: (W_c * coarse) * weights for the coarse part of every layer, see instance_cost.py;
- a layer's own part, its coarse part and its bias are one product: the weights are joined once a
  RoI, and the points carry, beside the layer's inputs, their bilinear weights and a one.

Values are (R, channels, points): what a sampler gives, and contiguous for each RoI.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import ProjectionPlan
from pointrend_deploy.graph.ops import sample
from pointrend_deploy.model.point_head import StandardPointHead


class InstancePointHead(nn.Module):
    """The point head for R RoIs at a time.

    Args:
        head: the reference head, whose weights are cut, not copied.
        fine_channels: channels of each fine map, in order.
        side: of the coarse logits.
        plan: which maps are projected.

    Raises:
        DeployError: the head's layers are not those of a point head.
    """

    cells: Tensor

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
            weight = layer.weight.detach()[:, :, 0]
            direct = weight[:, :own]
            if number == 0:
                direct = self._cut_fine(direct, fine_channels)
            self.register_buffer(f"own{number}", direct.contiguous())
            self.register_buffer(f"coarse{number}", weight[:, own:].contiguous())
            self.register_buffer(f"bias{number}", layer.bias.detach().unsqueeze(1))
            own = weight.shape[0]
        like = head.predictor.weight
        cells = torch.eye(side * side, dtype=like.dtype, device=like.device)
        self.register_buffer("cells", cells.reshape(1, side * side, side, side))

    def _cut_fine(self, weight: Tensor, fine_channels: Sequence[int]) -> Tensor:
        """Keep the projected maps' weights apart; give back the others'."""
        left = [weight[:, :0]]
        pieces = torch.split(weight, list(fine_channels), dim=1)
        for index, (piece, cut) in enumerate(zip(pieces, self.plan.fine, strict=True)):
            if cut:
                self.register_buffer(f"fine{index}", piece.contiguous())
            else:
                left.append(piece)
        return torch.cat(left, dim=1)

    def prepare(self, fine: Sequence[Tensor]) -> list[Tensor]:
        """Fine maps to sample, (1, C, h, w) each, projected or as they are.

        A product, not a 1x1 convolution: ONNX Runtime would bring the map into its blocked layout
        and back, two copies of the map.
        """
        maps = []
        for index, (each, cut) in enumerate(zip(fine, self.plan.fine, strict=True)):
            if cut:
                projected = self.get_buffer(f"fine{index}") @ each.flatten(2)
                each = torch.unflatten(projected, 2, each.shape[2:])
            maps.append(each)
        return maps

    def weights(self, coarse: Tensor, classes: Tensor) -> list[Tensor]:
        """Joined weights of every layer.

        Args:
            coarse: (R, C, side, side).
            classes: (R,) int64.

        Returns:
            (R, O, K) each; (O, K) where nothing in them depends on the RoI. The columns of K are
            the layer's inputs, the coarse part where it joins, the bias.
        """
        rois, channels = coarse.shape[:2]
        flat = coarse.reshape(rois, channels, self.side * self.side)
        joined = []
        for number in range(self.hidden + 1):
            parts = [self.get_buffer(f"{kind}{number}") for kind in ("own", "coarse", "bias")]
            if number == self.hidden:
                parts = [_rows(part, classes) for part in parts]
            own, part, bias = parts
            if not self.joins[number]:
                joined.append(torch.cat((own, bias), dim=-1))
                continue
            if self.plan.coarse:
                part = part @ flat
                own, bias = (each.expand(rois, *each.shape[-2:]) for each in (own, bias))
            joined.append(torch.cat((own, part, bias), dim=-1))
        return joined

    def beside(self, coarse: Tensor, points: Tensor) -> Tensor:
        """What joins the layers at points (R, P, 2) of the boxes: (R, side**2 or C, P)."""
        rois, count = points.shape[:2]
        if not self.plan.coarse:
            return sample(coarse, points)
        found = sample(self.cells, points.reshape(1, rois * count, 2))
        return found.reshape(self.side * self.side, rois, count).transpose(0, 1)

    def forward(self, fine: list[Tensor], beside: Tensor, weights: list[Tensor]) -> Tensor:
        """Logits of the predicted class.

        Args:
            fine: the prepared maps sampled, (R, C, P) each.
            beside: of :meth:`beside`.
            weights: of :meth:`weights`.

        Returns:
            (R, 1, P).
        """
        one = torch.ones_like(beside[:, :1])
        with_one = torch.cat((beside, one), dim=1)
        inputs = [f for f, cut in zip(fine, self.plan.fine, strict=True) if not cut]
        added = [f for f, cut in zip(fine, self.plan.fine, strict=True) if cut]
        for number, weight in enumerate(weights):
            inputs.append(with_one if self.joins[number] else one)
            x = weight @ (torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0])
            for each in added:
                x = x + each
            if number < self.hidden:
                x = F.relu(x)
            inputs, added = [x], []
        return inputs[0]


def _rows(weight: Tensor, classes: Tensor) -> Tensor:
    """The row of every RoI's class, or the only one: (C or 1, K) -> (R, 1, K)."""
    if weight.shape[0] == 1:
        return weight.expand(classes.shape[0], 1, -1)
    return weight.index_select(0, classes).unsqueeze(1)
