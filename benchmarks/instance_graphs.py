"""The mask part alone: detectron2's form exported as it is, ours, and the eager reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend_deploy.graph.instance.masks import ROIS_AT_ONCE, InstanceMasks
from pointrend_deploy.graph.instance.points import pays
from pointrend_deploy.graph.passes.bodies import attach_bodies
from pointrend_deploy.graph.trace import trace
from pointrend_deploy.model.instance.mask_head import PointRendMaskHead
from pointrend_deploy.model.pointrend import regular_grid, sample_in_boxes, subdivide_instances
from pointrend_deploy.recipe.instance import (
    CoarseMaskHeadSpec,
    InstancePointHeadSpec,
    subdivision_start,
)

STRIDE = 4
"""Pixels of the network input that one cell of p2 stands for."""

REFERENCE_ROIS = 16
"""RoIs the reference handles together, as ``InstanceModel.mask_stages`` does."""


@dataclass(frozen=True)
class Sizes:
    """A mask problem: RoIs, p2, classes, and the widths of the heads."""

    rois: int = 50
    height: int = 200
    width: int = 304
    classes: int = 80
    channels: int = 256
    fc_dim: int = 1024
    rois_at_once: int = ROIS_AT_ONCE

    @property
    def coarse(self) -> CoarseMaskHeadSpec:
        """The coarse head."""
        return CoarseMaskHeadSpec(channels=self.channels, fc_dim=self.fc_dim)

    @property
    def points(self) -> InstancePointHeadSpec:
        """The point head: 28 to 224, 784 points a step."""
        return InstancePointHeadSpec(fc_dim=self.channels)


def mask_head(sizes: Sizes) -> PointRendMaskHead:
    """Make a seeded head whose logits have both signs."""
    torch.manual_seed(0)
    head = PointRendMaskHead(sizes.coarse, sizes.points, sizes.channels, sizes.classes)
    for layer in (head.coarse_head.prediction, head.point_head.predictor):
        layer.weight.data.mul_(5.0)
    return head.eval().requires_grad_(False)


def inputs(sizes: Sizes) -> dict[str, np.ndarray]:
    """Make seeded inputs: ``p2``, ``boxes`` of 32 to 512 pixels inside the picture, ``classes``."""
    random = np.random.default_rng(0)
    picture = np.array([sizes.width, sizes.height]) * STRIDE
    size = np.minimum(np.exp(random.uniform(np.log(32), np.log(512), (sizes.rois, 2))), picture)
    corner = random.uniform(0, 1, (sizes.rois, 2)) * (picture - size)
    return {
        "p2": random.standard_normal(
            (1, sizes.channels, sizes.height, sizes.width), dtype=np.float32
        ),
        "boxes": np.concatenate([corner, corner + size], axis=1).astype(np.float32),
        "classes": random.integers(0, sizes.classes, sizes.rois),
    }


class Detectron2Form(nn.Module):
    """The mask part as detectron2 writes it: every class carried along, one taken at the end."""

    def __init__(self, head: PointRendMaskHead, sizes: Sizes) -> None:
        super().__init__()
        self.head = head
        self.side, self.steps = subdivision_start(
            sizes.coarse.output_resolution,
            sizes.points.subdivision_steps,
            sizes.points.subdivision_points,
        )
        self.count = sizes.points.subdivision_points
        self.pooled = sizes.coarse.pooler_resolution

    def forward(self, p2: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
        """Return mask logits (R, 1, S, S) of the predicted classes."""
        rois = len(boxes)
        every = torch.arange(rois)
        points = regular_grid(boxes, self.pooled)
        coarse = self.head.coarse_head(
            _fine(p2, boxes, points).reshape(rois, -1, self.pooled, self.pooled)
        )
        points = regular_grid(boxes, self.side)
        logits = self._logits(p2, coarse, boxes, points).reshape(rois, -1, self.side, self.side)
        for _ in range(self.steps):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            _, channels, height, width = logits.shape
            uncertainty = -logits[every, classes].unsqueeze(1).abs()
            indices = torch.topk(uncertainty.reshape(rois, height * width), self.count).indices
            x = 0.5 / width + (indices % width).to(torch.float32) / width
            y = 0.5 / height + (indices // width).to(torch.float32) / height
            point_logits = self._logits(p2, coarse, boxes, torch.stack((x, y), dim=2))
            where = indices.unsqueeze(1).expand(-1, channels, -1)
            logits = logits.reshape(rois, channels, height * width)
            logits = logits.scatter(2, where, point_logits)
            logits = logits.reshape(rois, channels, height, width)
        return logits[every, classes].unsqueeze(1)

    def _logits(self, p2: Tensor, coarse: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
        sampled = F.grid_sample(coarse, 2.0 * points.unsqueeze(2) - 1.0, align_corners=False)
        logits: Tensor = self.head.point_head(_fine(p2, boxes, points), sampled.squeeze(3))
        return logits


def _fine(p2: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
    """Sample p2 at points of boxes, channels first: (R, C, P)."""
    rois, count = points.shape[:2]
    in_image = points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]
    extent = torch.tensor([p2.shape[3] * STRIDE, p2.shape[2] * STRIDE], dtype=p2.dtype)
    grid = 2.0 * (in_image / extent).reshape(1, rois * count, 1, 2) - 1.0
    sampled = F.grid_sample(p2, grid, align_corners=False)
    return sampled.reshape(p2.shape[1], rois, count).transpose(0, 1)


class OurForm(nn.Module):
    """The same function as the deployable graph computes it.

    Args:
        head: the head.
        sizes: of the problem.
        gathered: as of :class:`InstanceMasks`.
        rows: likewise.
    """

    def __init__(
        self, head: PointRendMaskHead, sizes: Sizes, gathered: bool = False, rows: bool = False
    ) -> None:
        super().__init__()
        p2 = [(sizes.height, sizes.width)]
        numbers = (sizes.coarse, sizes.points, sizes.rois, p2, sizes.channels, sizes.rois_at_once)
        self.masks = InstanceMasks(head, *numbers, gathered=gathered, rows=rows)

    def forward(self, p2: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
        """Return mask logits (R, S, S) of the predicted classes."""
        logits: Tensor = self.masks(boxes, classes, p2)["mask_logits"]
        return logits


def reference(head: PointRendMaskHead, sizes: Sizes, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Run the eager reference and return its mask logits (R, 1, S, S)."""
    p2, boxes, classes = (torch.from_numpy(feed[name]) for name in ("p2", "boxes", "classes"))
    start = subdivision_start(
        sizes.coarse.output_resolution,
        sizes.points.subdivision_steps,
        sizes.points.subdivision_points,
    )
    side, count = sizes.coarse.pooler_resolution, sizes.points.subdivision_points
    found = []
    for first in range(0, sizes.rois, REFERENCE_ROIS):
        some = boxes[first : first + REFERENCE_ROIS]
        pooled = sample_in_boxes([p2], [STRIDE], some, regular_grid(some, side))
        coarse = head.coarse_head(torch.unflatten(pooled, 2, (side, side)))
        stages = subdivide_instances(
            coarse,
            some,
            classes[first : first + REFERENCE_ROIS],
            [p2],
            [STRIDE],
            head.point_head,
            start,
            count,
        )
        found.append(stages["mask_logits"])
    logits: np.ndarray = torch.cat(found).numpy()
    return logits


def both_graphs(head: PointRendMaskHead, sizes: Sizes) -> dict[str, onnx.ModelProto]:
    """Export ``detectron2``, ``ours`` and ``plugin`` with the same head and fixed shapes.

    The first two are in standard ops; ``plugin`` is our graph as ``--ops plugin`` exports it, with
    custom nodes and their function bodies.
    """
    ours_form = OurForm(head, sizes, gathered=pays(sizes.rois, [(sizes.height, sizes.width)]))
    examples = (
        torch.zeros(1).expand(1, sizes.channels, sizes.height, sizes.width),
        torch.zeros(sizes.rois, 4),
        torch.zeros(sizes.rois, dtype=torch.int64),
    )
    names = ["p2", "boxes", "classes"]
    theirs = trace(Detectron2Form(head, sizes), examples, names, ["mask_logits"])
    ours = trace(ours_form, examples, names, ["mask_logits"])
    native = onnx.inliner.inline_local_functions(attach_bodies(ours))
    together = trace(OurForm(head, sizes, rows=True), examples, names, ["mask_logits"])
    return {"detectron2": theirs, "ours": native, "plugin": attach_bodies(together)}
