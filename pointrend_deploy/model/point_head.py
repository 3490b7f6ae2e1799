"""The standard point head: a small MLP shared by all points (paper section 3.3).

Source: detectron2 projects/PointRend/point_rend/point_head.py, StandardPointHead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.recipe import PointHeadSpec


class StandardPointHead(nn.Module):
    """``num_fc`` layers of width ``fc_dim`` and a predictor, as 1x1 convolutions over points.

    The coarse logits it reads have ``num_classes`` channels; it predicts as many, or
    ``num_outputs`` (a class-agnostic instance head: 1).
    """

    def __init__(
        self,
        spec: PointHeadSpec,
        fine_channels: int,
        num_classes: int,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.num_fc = spec.num_fc
        self.coarse_in_every_layer = spec.coarse_in_every_layer
        channels = fine_channels + num_classes
        for number in range(1, spec.num_fc + 1):
            self.add_module(f"fc{number}", nn.Conv1d(channels, spec.fc_dim, 1))
            channels = spec.fc_dim + (num_classes if spec.coarse_in_every_layer else 0)
        self.predictor = nn.Conv1d(channels, num_outputs or num_classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Logits of points.

        Args:
            fine: (N, C_fine, P) features sampled from the pyramid.
            coarse: (N, C, P) logits sampled from the original coarse prediction.

        Returns:
            (N, C, P); C is ``num_outputs`` where that was given.
        """
        x = torch.cat((fine, coarse), dim=1)
        for number in range(1, self.num_fc + 1):
            x = F.relu(self.get_submodule(f"fc{number}")(x))
            if self.coarse_in_every_layer:
                x = torch.cat((x, coarse), dim=1)
        logits: Tensor = self.predictor(x)
        return logits
