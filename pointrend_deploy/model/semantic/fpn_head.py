"""Semantic FPN head (Kirillov et al. 2019; detectron2 meta_arch/semantic_seg.py SemSegFPNHead)."""

from __future__ import annotations

from torch import Tensor, nn

from pointrend_deploy.model.backbone.layers import Conv2d
from pointrend_deploy.recipe.semantic import CoarseHeadSpec


class SemanticFPNHead(nn.Module):
    """Each level is convolved and doubled down to ``common_stride``; the sum is classified.

    ``p<k>`` is a Sequential in which convolutions stand at even indices and doublings at odd ones,
    so that parameter names are detectron2's (``p4.2.weight``).
    """

    def __init__(self, spec: CoarseHeadSpec, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.in_features = sorted(spec.in_features, key=lambda name: int(name[1:]))
        self.common_stride = spec.common_stride
        for name in self.in_features:
            doublings = int(name[1:]) - (spec.common_stride.bit_length() - 1)
            layers: list[nn.Module] = []
            channels = in_channels
            for _ in range(max(1, doublings)):
                layers.append(Conv2d(channels, spec.channels, 3, norm=spec.norm, relu=True))
                channels = spec.channels
                if doublings > 0:
                    layers.append(
                        nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
                    )
            self.add_module(name, nn.Sequential(*layers))
        self.predictor = Conv2d(spec.channels, num_classes, 1)

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Coarse logits (N, C, H / common_stride, W / common_stride) from the pyramid."""
        x: Tensor | None = None
        for name in self.in_features:
            level: Tensor = self.get_submodule(name)(features[name])
            x = level if x is None else x + level
        logits: Tensor = self.predictor(x)
        return logits
