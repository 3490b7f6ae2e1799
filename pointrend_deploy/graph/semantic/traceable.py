"""The modules that are traced: fixed steps, named outputs, the exact rewrites.

The same function as ``SemanticModel.canvas_stages`` up to rounding and the order of points:

- labels, not logits: where logits are not asked for, the last step has no C x H x W tensor; its
  labels are the upsampled map's arg-max with the chosen points' own arg-max put in;
- uncertainty and labels straight from the logits before upsampling, by an op (upsample.py) whose
  body keeps running maxima in place of TopK over the classes (upsample_bodies.py);
- one set of coordinates a step, shared by the fine and the coarse samples;
- the point head's products before or after sampling, whichever is counted cheaper on a CPU
  (cost.py); in the plugin flavour after it, from one op that samples both maps;
- where K >= H*W every cell is recomputed, so nothing is upsampled, selected or scattered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.cost import PointWork, ProjectionPlan, plan_projection
from pointrend_deploy.graph.ops import UPSAMPLE_SCALES, integer_quotient, most_uncertain
from pointrend_deploy.graph.options import GraphOptions
from pointrend_deploy.graph.semantic.point_layers import (
    CellPointHead,
    ProjectedPointHead,
    SampledPointHead,
)
from pointrend_deploy.graph.upsample import (
    refine_labels,
    refine_logits,
    upsample_labels,
    upsample_uncertainty,
)
from pointrend_deploy.model.network_input import Normalise
from pointrend_deploy.model.pointrend import StandardPointHead, cell_centres
from pointrend_deploy.model.semantic.model import SemanticModel

Head = SampledPointHead | ProjectedPointHead | CellPointHead


class SubdivisionStep(nn.Module):
    """One doubling of the grid and the recomputation of its most uncertain points.

    Args:
        head: the point head, shared by all steps.
        num_points: most points recomputed.
        last_labels: this is the last step, and the graph needs only its labels.
    """

    def __init__(
        self,
        head: Head,
        num_points: int,
        last_labels: bool,
    ) -> None:
        super().__init__()
        self.head = head
        self.num_points = num_points
        self.last_labels = last_labels

    def forward(self, logits: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute one step.

        Args:
            logits: (N, C, h, w) of the step before.
            maps: what ``head.prepare`` made of the fine maps and the coarse logits.

        Returns:
            ``indices`` (N, K) int64, ``point_logits`` (N, C, K), and ``labels`` (N, 2h, 2w) with
            ``last_labels``, else ``logits`` (N, C, 2h, 2w).
        """
        n, _, h, w = logits.shape
        height, width = 2 * h, 2 * w
        if self.num_points >= height * width:
            return self._recompute_all(logits, maps)
        if self.last_labels:
            unsure, labels = upsample_labels(logits, 2)
        else:
            unsure = upsample_uncertainty(logits, 2)
        indices = most_uncertain(unsure, self.num_points)
        point_logits = self._at(indices, (height, width), maps, grid_points)
        found = {"indices": indices, "point_logits": point_logits}
        if self.last_labels:
            labels = refine_labels(labels, indices, point_logits)
            return {**found, "labels": labels.reshape(n, height, width)}
        return {**found, "logits": refine_logits(logits, indices, point_logits, 2)}

    def _at(
        self,
        indices: Tensor,
        grid_hw: tuple[int, int],
        maps: list[Tensor],
        points_of: Callable[[Tensor, int, int, torch.dtype], Tensor],
    ) -> Tensor:
        """Point logits (N, C, K) at cells (N, K), whose points ``points_of`` gives if need be."""
        if isinstance(self.head, CellPointHead):
            found: Tensor = self.head(maps, indices, *grid_hw)
            return found
        found = self.head(maps, points_of(indices, *grid_hw, maps[0].dtype))
        return found

    def _recompute_all(self, logits: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        n, classes, h, w = logits.shape
        height, width = 2 * h, 2 * w
        indices = torch.arange(height * width).expand(n, -1)
        point_logits = self._at(indices, (height, width), maps, cell_centres)
        found = {"indices": indices, "point_logits": point_logits}
        dense = point_logits.reshape(n, classes, height, width)
        if self.last_labels:
            return {**found, "labels": dense.argmax(dim=1)}
        return {**found, "logits": dense}


def grid_points(indices: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return cell centres (N, K, 2) of flat indices (N, K): ``cell_centres`` in integer ops."""
    rows = integer_quotient(indices, width)
    columns = indices - rows * width
    step_x, step_y = 1.0 / width, 1.0 / height
    x = columns.to(dtype) * step_x + step_x / 2.0
    y = rows.to(dtype) * step_y + step_y / 2.0
    return torch.stack((x, y), dim=-1)


class Subdivision(nn.Module):
    """All steps, from the coarse logits and the fine maps to the stages a graph gives.

    Args:
        head: the reference point head.
        steps: doublings.
        num_points: most points a step.
        fine_channels: channels of each fine map.
        plan: which maps the point head multiplies before sampling; None for an engine, where one op
            samples both maps if the head allows, and none is multiplied.
        labels_only: logits of the last step are not wanted.
    """

    def __init__(
        self,
        head: StandardPointHead,
        steps: int,
        num_points: int,
        fine_channels: Sequence[int],
        plan: ProjectionPlan | None,
        labels_only: bool,
    ) -> None:
        super().__init__()
        self.head: Head
        if plan is None and len(fine_channels) == 1 and not head.coarse_in_every_layer:
            self.head = CellPointHead(head)
        elif plan is not None and plan.any:
            self.head = ProjectedPointHead(head, fine_channels, plan)
        else:
            self.head = SampledPointHead(head)
        for step in range(steps):
            last_labels = labels_only and step == steps - 1
            self.add_module(f"step{step}", SubdivisionStep(self.head, num_points, last_labels))
        self.steps = steps

    def forward(self, coarse: Tensor, fine: list[Tensor]) -> dict[str, Tensor]:
        """Compute the stages in the reference's order.

        Args:
            coarse: (N, C, h, w) coarse logits.
            fine: (N, C_i, h_i, w_i) each.

        Returns:
            ``step<t>.indices``, ``step<t>.point_logits``, ``logits`` unless ``labels_only``, and
            ``labels`` (N, H, W), whole numbers of any type.
        """
        maps = self.head.prepare(fine, coarse)
        stages: dict[str, Tensor] = {}
        logits, labels = coarse, None
        for step in range(self.steps):
            found = self.get_submodule(f"step{step}")(logits, maps)
            stages[f"step{step}.indices"] = found["indices"]
            stages[f"step{step}.point_logits"] = found["point_logits"]
            labels = found.get("labels")
            logits = found.get("logits", logits)
        if labels is None:
            stages["logits"] = logits
            labels = logits.argmax(dim=1)
        stages["labels"] = labels
        return stages


class DeployGraph(nn.Module):
    """The module that is exported: from the network input to the outputs of ``options``."""

    def __init__(self, model: SemanticModel, options: GraphOptions) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.coarse_head = model.coarse_head
        self.options = options
        self.recipe = model.recipe
        self.labels_only = "logits" not in options.outputs
        self.normalise = Normalise(model.recipe.input) if options.preprocess == "in-graph" else None
        self.subdivision: Subdivision | None = None
        spec = model.recipe.point_head
        if spec is not None and model.point_head is not None:
            native = options.ops == "native"
            plan = plan_projection(point_work(model, options)) if native else None
            self.subdivision = Subdivision(
                model.point_head,
                spec.subdivision_steps,
                spec.subdivision_points,
                [model.recipe.fpn.out_channels] * len(spec.in_features),
                plan,
                self.labels_only,
            )

    def forward(self, image: Tensor, extent: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the outputs of ``options`` by name, in the order labels, logits, stages.

        Args:
            image: (N, 3, Hp, Wp) float32, or (N, Hp, Wp, 3) uint8 with in-graph pre-processing.
            extent: (N, 2) int64, height and width of each picture, with in-graph pre-processing.
        """
        if self.normalise is not None:
            if extent is None:
                raise DeployError("in-graph pre-processing takes the picture's extent")
            image = self.normalise(image, extent)
        features: dict[str, Tensor] = self.backbone(image)
        coarse = self.coarse_head.layers(features)
        stages = {**features, "coarse": coarse, **self._refine(coarse, features)}
        labels = stages.pop("labels").to(torch.uint8)
        logits = stages.pop("logits", None)
        wanted = {}
        if "labels" in self.options.outputs:
            wanted["labels"] = labels
        if "logits" in self.options.outputs and logits is not None:
            wanted["logits"] = logits
        if "stages" in self.options.outputs:
            wanted.update(stages)
        return wanted

    def _refine(self, coarse: Tensor, features: dict[str, Tensor]) -> dict[str, Tensor]:
        spec = self.recipe.point_head
        if self.subdivision is not None and spec is not None:
            fine = [features[name] for name in spec.in_features]
            refined: dict[str, Tensor] = self.subdivision(coarse, fine)
            return refined
        stride = self.coarse_head.common_stride
        if self.labels_only and stride in UPSAMPLE_SCALES:
            n, _, h, w = coarse.shape
            labels = upsample_labels(coarse, stride)[1]
            return {"labels": labels.reshape(n, h * stride, w * stride)}
        logits = torch.nn.functional.interpolate(
            coarse, scale_factor=float(stride), mode="bilinear", align_corners=False
        )
        return {"logits": logits, "labels": logits.argmax(dim=1)}


def point_work(model: SemanticModel, options: GraphOptions) -> PointWork:
    """Sizes of the point head's work for one picture of an export."""
    spec = model.recipe.point_head
    if spec is None:
        raise DeployError(f"recipe {model.recipe.name} has no point_head section")
    height, width = options.padded_hw
    stride = model.recipe.coarse_head.common_stride
    coarse_cells = (height // stride) * (width // stride)
    fine = tuple(
        (model.recipe.fpn.out_channels, (height >> int(name[1:])) * (width >> int(name[1:])))
        for name in spec.in_features
    )
    points = sum(
        min(spec.subdivision_points, coarse_cells * 4 ** (step + 1))
        for step in range(spec.subdivision_steps)
    )
    return PointWork(
        fine=fine,
        coarse=(model.recipe.num_classes, coarse_cells),
        width=spec.fc_dim,
        hidden_layers=spec.num_fc,
        coarse_in_every_layer=spec.coarse_in_every_layer,
        points=points,
    )
