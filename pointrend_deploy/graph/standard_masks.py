"""The standard mask head as the graph computes it: one plane a RoI, that of its class.

Class first: the predictor is a 1x1 convolution with one row a class, and of its planes only the
predicted class's is read, so that row alone is multiplied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.graph.instance_ops import pool
from pointrend_deploy.instance_recipe import StandardMaskHeadSpec
from pointrend_deploy.model.mask_head import StandardMaskHead


class StandardMasks(nn.Module):
    """Mask R-CNN's mask head for any number of RoIs of one picture.

    Args:
        head: the reference's.
        spec: its recipe's.
    """

    def __init__(self, head: StandardMaskHead, spec: StandardMaskHeadSpec) -> None:
        super().__init__()
        self.features = spec.in_features
        self.side = spec.pooler_resolution
        self.layers = nn.ModuleDict(
            {
                name: head.get_submodule(name)
                for name in (f"mask_fcn{number + 1}" for number in range(spec.num_conv))
            }
        )
        self.deconv = head.deconv
        weight, bias = head.predictor.weight.detach().flatten(1), head.predictor.bias
        offset = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach()
        self.register_buffer("rows", weight.contiguous())
        self.register_buffer("bias", offset.unsqueeze(1))

    def forward(self, boxes: Tensor, classes: Tensor, *features: Tensor) -> dict[str, Tensor]:
        """Masks of boxes.

        Args:
            boxes: (R, 4) in pixels of the network input.
            classes: (R,) int64, in [0, C).
            features: (1, C, h, w) each, in the order of :attr:`features`.

        Returns:
            ``mask_logits`` (R, S, S), relative to the boxes.
        """
        first = int(self.features[0][1:])
        x = pool(boxes.unsqueeze(0), features, first, self.side)
        for layer in self.layers.values():
            x = layer(x)
        x = F.relu(self.deconv(x))
        weight, bias = self.get_buffer("rows"), self.get_buffer("bias")
        if weight.shape[0] > 1:
            weight = weight.index_select(0, classes).unsqueeze(1)
            bias = bias.index_select(0, classes).unsqueeze(1)
        logits = weight @ x.flatten(2) + bias
        side = x.shape[2]
        return {"mask_logits": logits.reshape(boxes.shape[0], side, side)}
