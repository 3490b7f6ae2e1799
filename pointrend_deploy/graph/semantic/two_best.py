"""Best class, its label and the uncertainty of every cell, without a C x H x W tensor.

Classes are visited one after the other (a few side by side), keeping the best and second best so
far. Each cell costs a few comparisons a class and no sort; the upsampled logits exist for a few
classes and a strip of rows at a time.

This needs a runtime to run the nodes in the order they are written. ONNX Runtime does not: it
walks back from the outputs and takes, of a node's inputs, the one written last. Three choices here,
none of which changes a value, make that walk follow the intended order: the upsampled classes are
written before the running maxima, the labels after them; the best is the maximum of three, with
the second best among them, so that the two advance together; and a strip's labels and uncertainty
leave it as one tensor. Without them all classes of all strips are alive at once.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.graph.ops import maximum3

SIDE_BY_SIDE: Final = 2
"""Classes upsampled together. Resize in ONNX Runtime runs one thread a channel."""

STRIP_BYTES: Final = 16 * 2**20
"""Working set of a strip: it fits the last-level cache of most machines."""

_LIVE_PLANES: Final = 6
"""Tensors of a group of classes alive at once: new, best, second, label and two results."""


def strip_rows(width: int, groups: int, budget: int = STRIP_BYTES) -> int:
    """Return the output rows of a strip of ``width`` columns and ``groups`` classes, at least 2."""
    return max(2, budget // (4 * width * groups * _LIVE_PLANES))


def labels_and_uncertainty(
    logits: Tensor, scale: int, budget: int = STRIP_BYTES
) -> tuple[Tensor, Tensor]:
    """Compute arg-max and second-best-minus-best of logits upsampled bilinearly by ``scale``.

    Equal to ``up = F.interpolate(logits, scale_factor=scale, mode="bilinear")``,
    ``up.argmax(1)`` (ties to the lower class) and ``uncertainty(up)`` (0 where two best tie).

    Args:
        logits: (N, C, h, w) with C >= 2.
        scale: 2, 4, ...
        budget: bytes of a strip's working set.

    Returns:
        Labels, whole numbers in the logits' type, and uncertainty, both (N, h*scale, w*scale).
    """
    joined = _strips(logits, scale, budget, with_labels=True)
    return joined[:, 0], joined[:, 1]


def uncertainty(logits: Tensor, scale: int, budget: int = STRIP_BYTES) -> Tensor:
    """Compute the uncertainty of :func:`labels_and_uncertainty` alone: (N, h*scale, w*scale)."""
    return _strips(logits, scale, budget, with_labels=False)[:, 0]


def _strips(logits: Tensor, scale: int, budget: int, *, with_labels: bool) -> Tensor:
    """Scan strip by strip: (N, 2 or 1, h*scale, w*scale).

    Strips are exact: each is upsampled with one more source row above and below, whose results are
    cut off, so every kept row sees the rows it would see in the whole map. All have the same
    shape, those at the edges by taking more rows from inside: a runtime reuses their memory.
    """
    _, classes, height, width = logits.shape
    groups = max(1, min(SIDE_BY_SIDE, classes // 2))
    rows = max(1, strip_rows(width * scale, groups, budget) // scale)
    rows = -(-height // -(-height // rows))
    window = min(rows + 2, height)
    strips = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first = min(max(top - 1, 0), height - window)
        found = _scan(logits[:, :, first : first + window], scale, groups, with_labels)
        strips.append(found[:, :, (top - first) * scale : (bottom - first) * scale])
    return torch.cat(strips, dim=2)


def _scan(logits: Tensor, scale: int, groups: int, with_labels: bool) -> Tensor:
    """Labels and uncertainty (N, 2, H, W) of one strip, or uncertainty alone (N, 1, H, W).

    The classes are cut into ``groups`` runs of ``turns`` neighbours; turn j handles the j-th class
    of every run as one tensor. Within a run and between runs the lower class comes first and wins
    ties, so the label is the first class of the highest logit.
    """
    classes = logits.shape[1]
    turns = -(-classes // groups)
    missing = groups * turns - classes
    if missing:
        # Half the lowest finite number: lower than any logit, and safe to interpolate.
        lowest = torch.finfo(logits.dtype).min / 2
        logits = F.pad(logits, (0, 0, 0, 0, 0, missing), value=lowest)
    planes = [_upsampled(logits[:, turn::turns], scale) for turn in range(turns)]
    best, second, raised = _running(planes)
    # The last turn that raised the best is the label: turns ascend, so a maximum keeps it.
    label = raised[0]
    for each in raised[1:]:
        label = torch.maximum(label, each)
    return _merged(best, second, label if with_labels else None, turns)


def _running(planes: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Best, second best, and for each turn but the first its number where it raised the best."""
    best, new = planes[0], planes[1]
    raised = [(new > best).to(best.dtype)]
    second = torch.minimum(best, new)
    best = maximum3(best, new, second)
    for turn, new in enumerate(planes[2:], start=2):
        raised.append((new > best).to(best.dtype) * turn)
        second = torch.maximum(second, torch.minimum(best, new))
        best = maximum3(best, new, second)
    return best, second, raised


def _merged(best: Tensor, second: Tensor, label: Tensor | None, turns: int) -> Tensor:
    """Merge the runs of classes, lowest first: (N, groups, H, W) -> (N, 2 or 1, H, W)."""
    top, runner_up = best[:, :1], second[:, :1]
    winner = None if label is None else label[:, :1]
    for run in range(1, best.shape[1]):
        new = best[:, run : run + 1]
        if label is not None and winner is not None:
            winner = torch.where(new > top, label[:, run : run + 1] + run * turns, winner)
        lower = torch.maximum(second[:, run : run + 1], torch.minimum(top, new))
        runner_up = torch.maximum(runner_up, lower)
        top = torch.maximum(top, new)
    if winner is None:
        return runner_up - top
    return torch.cat((winner, runner_up - top), dim=1)


def _upsampled(planes: Tensor, scale: int) -> Tensor:
    return F.interpolate(planes, scale_factor=float(scale), mode="bilinear", align_corners=False)
