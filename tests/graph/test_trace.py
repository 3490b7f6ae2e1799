"""Tracing simplifies a graph as torch's own optimizer does, in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.graph.trace import trace

NAMES = ["labels", "logits", "cut"]


class Network(nn.Module):
    """What a deployable graph has: folded norms, shape arithmetic, slices, equal values twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.uniform_(-1, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(torch.relu(self.norm(self.conv(x))))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        rows = x.flatten(2).transpose(1, 2).reshape(-1, 4).reshape(1, -1, 4)
        top, bottom = x[:, :, :4] * 1.0, x[:, :, 4:]
        logits = self.fc(rows)
        return {
            "labels": logits,
            "logits": logits,
            "cut": torch.cat((bottom, top), dim=2) + x.flatten()[0],
        }


def test_as_torchs_own_optimizer() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    image = torch.zeros(1, 3, 8, 6)
    found = trace(network, (image,), ["image"], NAMES)
    program = torch.onnx.export(
        network,
        (image,),
        input_names=["image"],
        output_names=NAMES,
        opset_version=18,
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    assert program is not None
    wanted = program.model_proto
    assert [value.name for value in found.graph.output] == NAMES
    assert "BatchNormalization" not in {node.op_type for node in found.graph.node}
    assert tidy(found, "0").SerializeToString() == tidy(wanted, "0").SerializeToString()
