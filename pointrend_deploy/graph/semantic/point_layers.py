"""The point head as the graph computes it: products before sampling where that is cheaper.

Two rewrites of ``StandardPointHead``, exact up to rounding:

- sample after projecting: W_f * sample(F) -> sample(W_f * F), for the fine part of the first layer;
- coarse once: W_c * sample(coarse) -> sample(W_c * coarse), for the coarse part of every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.graph.cost import ProjectionPlan
from pointrend_deploy.graph.ops import cells_channels, sample, sample_cells
from pointrend_deploy.model.pointrend import StandardPointHead


class SampledPointHead(nn.Module):
    """The head as it is: sample every map, concatenate, multiply."""

    def __init__(self, head: StandardPointHead) -> None:
        super().__init__()
        self.head = head

    def prepare(self, fine: Sequence[Tensor], coarse: Tensor) -> list[Tensor]:
        """Return the maps to sample, unchanged: the fine ones, then ``coarse``."""
        return [*fine, coarse]

    def forward(self, maps: list[Tensor], points: Tensor) -> Tensor:
        """Compute point logits (N, C, P) at points (N, P, 2), (x, y) in [0, 1], of the maps."""
        sampled = [sample(each, points) for each in maps]
        fine = torch.cat(sampled[:-1], dim=1) if len(sampled) > 2 else sampled[0]
        logits: Tensor = self.head(fine, sampled[-1])
        return logits


class CellPointHead(nn.Module):
    """The head over one op that samples both maps at cells of the grid; nothing is projected.

    On a GPU the products at the points cost less than what projected maps would move. The first
    layer's weights have zeros for the channels that the op adds.

    Args:
        head: a reference head whose coarse logits join the first layer only.
    """

    def __init__(self, head: StandardPointHead) -> None:
        super().__init__()
        self.head = head
        first = head.get_submodule("fc1")
        if not isinstance(first, nn.Conv1d) or first.bias is None:
            raise TypeError("a point head is made of Conv1d layers with a bias")
        missing = cells_channels(first.in_channels) - first.in_channels
        self.fc1 = nn.Conv1d(first.in_channels + missing, first.out_channels, 1)
        weight = F.pad(first.weight.detach(), (0, 0, 0, missing))
        self.fc1.weight = nn.Parameter(weight, requires_grad=False)
        self.fc1.bias = first.bias

    def prepare(self, fine: Sequence[Tensor], coarse: Tensor) -> list[Tensor]:
        """Return the two maps to sample, unchanged."""
        return [*fine, coarse]

    def forward(self, maps: list[Tensor], indices: Tensor, height: int, width: int) -> Tensor:
        """Compute point logits (N, C, K) at cells (N, K), flat indices of a grid over the maps."""
        fine, coarse = maps
        x = sample_cells(fine, coarse, indices, height, width)
        x = F.relu(self.fc1(x))
        for number in range(2, self.head.num_fc + 1):
            x = F.relu(self.head.get_submodule(f"fc{number}")(x))
        logits: Tensor = self.head.get_submodule("predictor")(x)
        return logits


class ProjectedPointHead(nn.Module):
    """The head with some maps multiplied by their part of the weights before sampling.

    Args:
        head: the reference head, whose weights are cut, not copied.
        fine_channels: channels of each fine map, in order.
        plan: which maps are projected.
    """

    def __init__(
        self, head: StandardPointHead, fine_channels: Sequence[int], plan: ProjectionPlan
    ) -> None:
        super().__init__()
        self.plan = plan
        layers = [head.get_submodule(f"fc{number + 1}") for number in range(head.num_fc)]
        self.hidden = head.num_fc
        self.coarse_in: list[bool] = [
            number == 0 or head.coarse_in_every_layer for number in range(head.num_fc + 1)
        ]
        fine_total = sum(fine_channels)
        for number, layer in enumerate([*layers, head.predictor]):
            if not isinstance(layer, nn.Conv1d):
                raise TypeError("a point head is made of Conv1d layers")
            weight = layer.weight.detach()
            own = (
                fine_total if number == 0 else weight.shape[1] - self._coarse_width(number, weight)
            )
            if number == 0:
                pieces = list(torch.split(weight[:, :own], list(fine_channels), dim=1))
                direct = [p for p, cut in zip(pieces, plan.fine, strict=True) if not cut]
                for index, (piece, cut) in enumerate(zip(pieces, plan.fine, strict=True)):
                    if cut:
                        self.register_buffer(f"fine{index}_weight", piece.unsqueeze(3).contiguous())
            else:
                direct = [weight[:, :own]]
            if self.coarse_in[number]:
                part = weight[:, own:]
                if plan.coarse:
                    self.register_buffer(f"coarse{number}_weight", part.unsqueeze(3).contiguous())
                else:
                    direct.append(part)
            if direct:
                self.register_buffer(f"layer{number}_weight", torch.cat(direct, dim=1).contiguous())
            bias = layer.bias
            if bias is None:
                raise TypeError("a point head's layers have a bias")
            self.register_buffer(f"layer{number}_bias", bias.detach())

    def _coarse_width(self, number: int, weight: Tensor) -> int:
        hidden = self.get_buffer("layer0_bias").shape[0]
        return weight.shape[1] - hidden if self.coarse_in[number] else 0

    def prepare(self, fine: Sequence[Tensor], coarse: Tensor) -> list[Tensor]:
        """Return the maps to sample: the fine ones, then coarse; projected as the plan says."""
        maps = [
            F.conv2d(each, self.get_buffer(f"fine{index}_weight")) if cut else each
            for index, (each, cut) in enumerate(zip(fine, self.plan.fine, strict=True))
        ]
        if not self.plan.coarse:
            return [*maps, coarse]
        weights = [
            self.get_buffer(f"coarse{number}_weight")
            for number, joins in enumerate(self.coarse_in)
            if joins
        ]
        return [*maps, F.conv2d(coarse, torch.cat(weights, dim=0))]

    def forward(self, maps: list[Tensor], points: Tensor) -> Tensor:
        """Compute point logits (N, C, P) at points (N, P, 2), (x, y) in [0, 1], of the maps."""
        *fine, coarse = [sample(each, points) for each in maps]
        shares = self._coarse_shares(coarse)
        x: Tensor | None = None
        for number in range(self.hidden + 1):
            inputs = [x] if x is not None else []
            added = []
            if number == 0:
                inputs += [f for f, cut in zip(fine, self.plan.fine, strict=True) if not cut]
                added += [f for f, cut in zip(fine, self.plan.fine, strict=True) if cut]
            if self.coarse_in[number]:
                (added if self.plan.coarse else inputs).append(shares[number])
            x = self._layer(number, inputs, added)
            if number < self.hidden:
                x = F.relu(x)
        if x is None:
            raise ValueError("a point head has at least one layer")
        return x

    def _coarse_shares(self, coarse: Tensor) -> dict[int, Tensor]:
        joining = [number for number, joins in enumerate(self.coarse_in) if joins]
        if not self.plan.coarse:
            return dict.fromkeys(joining, coarse)
        widths = [self.get_buffer(f"coarse{number}_weight").shape[0] for number in joining]
        return dict(zip(joining, torch.split(coarse, widths, dim=1), strict=True))

    def _layer(self, number: int, inputs: list[Tensor], added: list[Tensor]) -> Tensor:
        bias = self.get_buffer(f"layer{number}_bias")
        if inputs:
            joined = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
            out = F.conv1d(joined, self.get_buffer(f"layer{number}_weight"), bias)
        else:
            out = bias.view(1, -1, 1)
        for each in added:
            out = out + each
        return out
