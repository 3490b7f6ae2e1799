"""The subdivision stage in two forms: with this project's kernels, and as detectron2 writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from pointrend_deploy.graph.semantic import point_layers, traceable
from scripts.gpu_check.launchers import Launchers

Forms = dict[str, nn.Module]
WHOLE = 2**40
"""Bytes of a strip: on a GPU the map is not cut into strips."""


def semantic(sizes: Sizes, seed: int = 0) -> tuple[Forms, tuple[Tensor, Tensor]]:
    """Make both forms of the semantic stage with one head, and an input.

    Returns:
        The forms ``detectron2``, which gives logits, and ``ours``, which gives labels; and their
        inputs, coarse logits and p2.
    """
    torch.manual_seed(seed)
    theirs, ours = both_forms(sizes, WHOLE)
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


def custom_ops(
    lib: Launchers,
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, int], Tensor]]:
    """Make ops of the sampler and the selection that torch.compile does not look into."""

    @torch.library.custom_op("pointrend_bench::sample", mutates_args=())
    def sample(features: Tensor, points: Tensor) -> Tensor:
        out = features.new_empty((features.shape[0], features.shape[1], points.shape[1]))
        lib.sample(features.contiguous(), points.contiguous(), out)
        return out

    @sample.register_fake
    def _(features: Tensor, points: Tensor) -> Tensor:
        return features.new_empty((features.shape[0], features.shape[1], points.shape[1]))

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

    return sample, uncertain


@contextmanager
def kernels(lib: Launchers) -> Iterator[None]:
    """Have the graph's modules call the kernels in place of the reference's ops."""
    sample, uncertain = custom_ops(lib)
    places = [
        *((module, "sample", sample) for module in (point_layers, instance_points, instance_masks)),
        *((module, "most_uncertain", uncertain) for module in (traceable, instance_masks)),
    ]
    with ExitStack() as stack:
        for module, name, op in places:
            stack.enter_context(patch.object(module, name, op))
        yield
