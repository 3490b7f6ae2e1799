"""The demonstration model's backbone: shapes, published names, and the padding it chose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend_deploy.model.backbone.efficientnet_lite import (
    ConvNorm,
    EfficientNetLite0,
    InvertedResidual,
    from_published,
)


def published_names(backbone: EfficientNetLite0) -> dict[str, torch.Tensor]:
    """The module's own state under the names of the published file, and a few that are cut off."""
    parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    parts["project"] = ("_project_conv", "_bn2")
    found = {"_fc.weight": torch.zeros(1000, 1280), "_blocks.11._bn0.weight": torch.zeros(672)}
    for name, value in backbone.state_dict().items():
        where, _, leaf = name.rpartition(".")
        if name.startswith("stem"):
            found[("_conv_stem." if where.endswith("0") else "_bn0.") + leaf] = value
        else:
            _, index, part, layer = where.split(".")
            found[f"_blocks.{index}.{parts[part][int(layer)]}.{leaf}"] = value
    return found


@pytest.mark.parametrize("height, width", [(64, 96), (16, 16), (48, 240)])
def test_features_have_the_promised_strides_and_channels(height: int, width: int) -> None:
    backbone = EfficientNetLite0().eval()
    features = backbone(torch.zeros(2, 3, height, width))
    assert list(features) == ["res2", "res3", "res4"]
    for name, channels, stride in (("res2", 24, 4), ("res3", 40, 8), ("res4", 112, 16)):
        assert features[name].shape == (2, channels, height // stride, width // stride)
        assert backbone.channels[name] == channels


def test_the_cut_leaves_seven_hundred_thousand_parameters() -> None:
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 700_768


def test_published_names_convert_and_what_is_cut_off_is_left_out() -> None:
    theirs, ours = EfficientNetLite0(), EfficientNetLite0()
    ours.load_state_dict(from_published(published_names(theirs)), strict=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_a_missing_published_tensor_is_noticed_when_loading() -> None:
    tensors = published_names(EfficientNetLite0())
    del tensors["_blocks.4._bn1.weight"]
    with pytest.raises(RuntimeError, match=r"blocks\.4\.depthwise\.1\.weight"):
        EfficientNetLite0().load_state_dict(from_published(tensors), strict=True)


@pytest.mark.parametrize("kernel", [3, 5])
def test_symmetric_padding_equals_same_padding_one_pixel_on(kernel: int) -> None:
    """TensorFlow's SAME at stride 2, even size: (k - 2) // 2 before and k // 2 after."""
    torch.manual_seed(0)
    layer = ConvNorm(4, 4, kernel, stride=2, activation=False).eval()
    x = torch.randn(1, 4, 32, 32)
    before, after = (kernel - 2) // 2, kernel // 2
    weight = layer[0].weight
    assert isinstance(weight, torch.Tensor)
    same = layer[1](F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=2))
    shifted = layer(x[:, :, 1:, 1:])
    inner = slice(2, -2)
    torch.testing.assert_close(shifted[..., inner, inner], same[..., inner, inner])
    assert not torch.allclose(layer(x)[..., inner, inner], same[..., inner, inner], atol=1e-2)


def test_a_block_adds_its_input_only_where_shapes_allow() -> None:
    x = torch.randn(1, 8, 8, 8)
    same = InvertedResidual(8, 8, expansion=6, kernel=3, stride=1).eval()
    torch.testing.assert_close(same(x) - x, same.project(same.depthwise(same.expand(x))))
    halving = InvertedResidual(8, 8, expansion=6, kernel=3, stride=2).eval()
    assert halving(x).shape == (1, 8, 4, 4)
    assert not halving.residual
    assert not InvertedResidual(8, 12, expansion=6, kernel=3, stride=1).residual
