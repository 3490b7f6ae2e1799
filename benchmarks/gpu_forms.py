"""The subdivision stage in two forms: with this project's kernels, and as detectron2 writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from instance_graphs import Detectron2Form as InstanceDetectron2Form
from instance_graphs import OurForm as InstanceOurForm
from instance_graphs import Sizes as InstanceSizes
from instance_graphs import inputs as instance_inputs
from instance_graphs import mask_head
from subdivision_graphs import Sizes, both_forms
from torch import Tensor, nn

from pointrend_deploy.graph.instance import masks as instance_masks
from pointrend_deploy.graph.instance import points as instance_points
from pointrend_deploy.graph.ops import cells_channels
from pointrend_deploy.graph.semantic import point_layers, traceable
from scripts.gpu_check.launchers import Launchers

Forms = dict[str, nn.Module]


def semantic(sizes: Sizes, seed: int = 0) -> tuple[Forms, tuple[Tensor, Tensor]]:
    """Make both forms of the semantic stage with one head, and an input.

    Returns:
        The forms ``detectron2``, which gives logits, and ``ours``, which gives labels; and their
        inputs, coarse logits and p2.
    """
    torch.manual_seed(seed)
    theirs, ours = both_forms(sizes, engine=True)
    # Smooth, as a network's are: uncertain along the lines between regions.
    blobs = torch.randn((1, sizes.classes, 8, 16))
    coarse = nn.functional.interpolate(blobs, sizes.coarse[2:], mode="bicubic") * 3.0
    forms: Forms = {"detectron2": theirs, "ours": ours}
    return forms, (coarse, torch.randn(sizes.fine))


def instance(sizes: InstanceSizes) -> tuple[Forms, tuple[Tensor, Tensor, Tensor]]:
    """Make both forms of the instance stage with one head, and an input.

    Returns:
        The forms ``detectron2`` and ``ours``, which both give mask logits; and their inputs, p2,
        boxes and classes.
    """
    head = mask_head(sizes)
    feed = {name: torch.from_numpy(value) for name, value in instance_inputs(sizes).items()}
    forms: Forms = {
        "detectron2": InstanceDetectron2Form(head, sizes),
        "ours": InstanceOurForm(head, sizes),
    }
    return forms, (feed["p2"], feed["boxes"], feed["classes"])


def custom_ops(lib: Launchers) -> dict[str, Callable[..., Any]]:
    """Make the kernels ops that torch.compile does not look into, by the names of graph/ops.py."""

    @torch.library.custom_op("pointrend_bench::sample", mutates_args=())
    def sample(features: Tensor, points: Tensor) -> Tensor:
        out = features.new_empty((features.shape[0], features.shape[1], points.shape[1]))
        lib.sample(features.contiguous(), points.contiguous(), out)
        return out

    @sample.register_fake
    def _(features: Tensor, points: Tensor) -> Tensor:
        return features.new_empty((features.shape[0], features.shape[1], points.shape[1]))

    @torch.library.custom_op("pointrend_bench::sample_cells", mutates_args=())
    def sample_cells(
        fine: Tensor, coarse: Tensor, indices: Tensor, height: int, width: int
    ) -> Tensor:
        out = sampled_cells(fine, coarse, indices)
        lib.sample_cells(fine.contiguous(), coarse.contiguous(), indices, (height, width), out)
        return out

    @sample_cells.register_fake
    def _(fine: Tensor, coarse: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
        return sampled_cells(fine, coarse, indices)

    def sampled_cells(fine: Tensor, coarse: Tensor, indices: Tensor) -> Tensor:
        channels = cells_channels(fine.shape[1] + coarse.shape[1])
        return fine.new_empty((fine.shape[0], channels, indices.shape[1]))

    @torch.library.custom_op("pointrend_bench::uncertain", mutates_args=())
    def uncertain(values: Tensor, k: int) -> Tensor:
        n, length = values.shape
        out = values.new_empty((n, k), dtype=torch.int64)
        size = lib.library.pointrend_uncertain_workspace(n, length)
        # The allocator's blocks are aligned to 512 bytes; on a CPU to 64, so a part is taken.
        room = torch.empty(size + 256, dtype=torch.uint8, device=values.device)
        skip = -room.data_ptr() % 256
        lib.uncertain(values.contiguous(), out, room[skip : skip + size])
        return out

    @uncertain.register_fake
    def _(values: Tensor, k: int) -> Tensor:
        return values.new_empty((values.shape[0], k), dtype=torch.int64)

    def upsampled(logits: Tensor, scale: int, dtype: torch.dtype = torch.float32) -> Tensor:
        cells = logits.shape[-2] * logits.shape[-1] * scale**2
        return logits.new_empty((logits.shape[0], cells), dtype=dtype)

    @torch.library.custom_op("pointrend_bench::upsample_uncertainty", mutates_args=())
    def upsample_uncertainty(logits: Tensor, scale: int) -> Tensor:
        out = upsampled(logits, scale)
        lib.upsample_two_best(logits.contiguous(), scale, out, None)
        return out

    @upsample_uncertainty.register_fake
    def _(logits: Tensor, scale: int) -> Tensor:
        return upsampled(logits, scale)

    @torch.library.custom_op("pointrend_bench::upsample_labels", mutates_args=())
    def upsample_labels(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        out, labels = upsampled(logits, scale), upsampled(logits, scale, torch.int32)
        lib.upsample_two_best(logits.contiguous(), scale, out, labels)
        return out, labels

    @upsample_labels.register_fake
    def _(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        return upsampled(logits, scale), upsampled(logits, scale, torch.int32)

    @torch.library.custom_op("pointrend_bench::refine_logits", mutates_args=())
    def refine_logits(logits: Tensor, indices: Tensor, points: Tensor, scale: int) -> Tensor:
        n, c, h, w = logits.shape
        out = logits.new_empty((n, c, h * scale, w * scale), dtype=torch.float32)
        lib.refine_logits(logits.contiguous(), indices, points.contiguous(), scale, out)
        return out

    @refine_logits.register_fake
    def _(logits: Tensor, indices: Tensor, points: Tensor, scale: int) -> Tensor:
        n, c, h, w = logits.shape
        return logits.new_empty((n, c, h * scale, w * scale), dtype=torch.float32)

    @torch.library.custom_op("pointrend_bench::refine_labels", mutates_args=())
    def refine_labels(labels: Tensor, indices: Tensor, points: Tensor) -> Tensor:
        out = torch.empty_like(labels)
        lib.refine_labels(labels.contiguous(), indices, points.contiguous(), out)
        return out

    @refine_labels.register_fake
    def _(labels: Tensor, indices: Tensor, points: Tensor) -> Tensor:
        return torch.empty_like(labels)

    return {
        "sample": sample,
        "sample_cells": sample_cells,
        "most_uncertain": uncertain,
        "upsample_uncertainty": upsample_uncertainty,
        "upsample_labels": upsample_labels,
        "refine_logits": refine_logits,
        "refine_labels": refine_labels,
    }


@contextmanager
def kernels(lib: Launchers) -> Iterator[None]:
    """Have the graph's modules call the kernels in place of the reference's ops."""
    ops = custom_ops(lib)
    modules = (point_layers, traceable, instance_points, instance_masks)
    places = [(each, name) for each in modules for name in ops if hasattr(each, name)]
    with ExitStack() as stack:
        for module, name in places:
            stack.enter_context(patch.object(module, name, ops[name]))
        yield
