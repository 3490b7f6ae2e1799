"""The subdivision part alone, as two ONNX graphs: detectron2's form exported as it is, and ours."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.inliner
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.graph.cost import PointWork, plan_projection
from pointrend_deploy.graph.passes.bodies import attach_bodies
from pointrend_deploy.graph.semantic.traceable import Subdivision
from pointrend_deploy.graph.trace import trace
from pointrend_deploy.model.pointrend import StandardPointHead
from pointrend_deploy.recipe.parts import PointHeadSpec


@dataclass(frozen=True)
class Sizes:
    """A subdivision problem: the network grid, classes, points a step, channels of p2."""

    height: int = 1024
    width: int = 2048
    classes: int = 19
    points: int = 8192
    channels: int = 256

    @property
    def coarse(self) -> tuple[int, int, int, int]:
        """Shape of the coarse logits, at stride 4."""
        return (1, self.classes, self.height // 4, self.width // 4)

    @property
    def fine(self) -> tuple[int, int, int, int]:
        """Shape of p2, at stride 4."""
        return (1, self.channels, self.height // 4, self.width // 4)


class Detectron2Form(nn.Module):
    """Two steps as detectron2 writes them; gives logits, whose arg-max the host takes."""

    def __init__(self, head: StandardPointHead, points: int) -> None:
        super().__init__()
        self.head = head
        self.points = points

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return logits (1, C, H, W) from coarse logits and p2."""
        logits = coarse
        for _ in range(2):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            n, classes, height, width = logits.shape
            best = torch.topk(logits, k=2, dim=1).values
            uncertainty = (best[:, 1] - best[:, 0]).reshape(n, height * width)
            count = min(height * width, self.points)
            indices = torch.topk(uncertainty, k=count, dim=1).indices
            x = (0.5 + (indices % width).to(torch.float32)) / width
            y = (0.5 + (indices // width).to(torch.float32)) / height
            grid = 2.0 * torch.stack((x, y), dim=2).unsqueeze(2) - 1.0
            sampled = [
                F.grid_sample(each, grid, align_corners=False).squeeze(3) for each in (fine, coarse)
            ]
            point_logits = self.head(sampled[0], sampled[1])
            where = indices.unsqueeze(1).expand(-1, classes, -1)
            logits = logits.reshape(n, classes, height * width).scatter(2, where, point_logits)
            logits = logits.view(n, classes, height, width)
        return logits


class OurForm(nn.Module):
    """The same two steps as the deployable graph has them; gives uint8 labels."""

    def __init__(self, subdivision: Subdivision) -> None:
        super().__init__()
        self.subdivision = subdivision

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return labels (1, H, W) uint8 from coarse logits and p2."""
        labels: Tensor = self.subdivision(coarse, [fine])["labels"]
        return labels.to(torch.uint8)


def both_forms(sizes: Sizes, engine: bool = False) -> tuple[Detectron2Form, OurForm]:
    """Make detectron2's form (logits) and ours (labels) with one head, random by torch's seed.

    Args:
        sizes: the problem.
        engine: our form as engines get it, not as ONNX Runtime does on a CPU.
    """
    spec = PointHeadSpec(subdivision_points=sizes.points)
    head = StandardPointHead(spec, sizes.channels, sizes.classes).eval().requires_grad_(False)
    cells = sizes.coarse[2] * sizes.coarse[3]
    work = PointWork(
        fine=((sizes.channels, cells),),
        coarse=(sizes.classes, cells),
        width=spec.fc_dim,
        hidden_layers=spec.num_fc,
        coarse_in_every_layer=spec.coarse_in_every_layer,
        points=min(sizes.points, 4 * cells) + min(sizes.points, 16 * cells),
    )
    plan = None if engine else plan_projection(work)
    ours = Subdivision(head, 2, sizes.points, [sizes.channels], plan, True)
    return Detectron2Form(head, sizes.points), OurForm(ours)


def both_graphs(sizes: Sizes) -> dict[str, onnx.ModelProto]:
    """Export ``detectron2`` and ``ours`` with one random head: standard ops, fixed shapes."""
    torch.manual_seed(0)
    their_form, our_form = both_forms(sizes)
    inputs = (torch.zeros(1).expand(sizes.coarse), torch.zeros(1).expand(sizes.fine))
    names = ["coarse", "p2"]
    theirs = trace(their_form, inputs, names, ["logits"])
    ours = trace(our_form, inputs, names, ["labels"])
    native = onnx.inliner.inline_local_functions(attach_bodies(ours))
    return {"detectron2": theirs, "ours": native}
