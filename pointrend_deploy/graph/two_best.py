"""Best class, its label and the uncertainty of every cell, without a C x H x W tensor.

Classes are visited one after the other (a few side by side), keeping the best and second best so
far. Each cell costs a few comparisons a class and no sort; the upsampled logits exist for a few
classes and a strip of rows at a time.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE_BY_SIDE: Final = 4
"""Classes upsampled together. Resize in ONNX Runtime runs one thread a channel."""

STRIP_BYTES: Final = 32 * 2**20
"""Working set of a strip: about what a large last-level cache holds."""

_LIVE_PLANES: Final = 6
"""Tensors of a group of classes alive at once: new, best, second, label and two results."""


def strip_rows(width: int, groups: int, budget: int = STRIP_BYTES) -> int:
    """Output rows of a strip of so many columns and classes side by side, at least 2."""
    return max(2, budget // (4 * width * groups * _LIVE_PLANES))


def labels_and_uncertainty(
    logits: Tensor, scale: int, budget: int = STRIP_BYTES
) -> tuple[Tensor, Tensor]:
    """Arg-max and second-best-minus-best of logits upsampled bilinearly by ``scale``.

    Equal to ``up = F.interpolate(logits, scale_factor=scale, mode="bilinear")``,
    ``up.argmax(1)`` (ties to the lower class) and ``uncertainty(up)`` (0 where two best tie).

    Strips are exact: a strip is upsampled with one more source row above and below, whose results
    are cut off, so every kept row sees the rows it would see in the whole map.

    Args:
        logits: (N, C, h, w) with C >= 2.
        scale: 1, 2, 4, ...; 1 takes the logits as they are.
        budget: bytes of a strip's working set.

    Returns:
        Labels (N, h*scale, w*scale) int32 and uncertainty (N, h*scale, w*scale).
    """
    _, classes, height, width = logits.shape
    if scale == 1:
        return _scan(logits, 1, 1)
    groups = max(1, min(SIDE_BY_SIDE, classes // 2))
    rows = max(1, strip_rows(width * scale, groups, budget) // scale)
    count = -(-height // rows)
    rows = -(-height // count)
    labels, uncertainties = [], []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)
        label, uncertainty = _scan(logits[:, :, first:last], scale, groups)
        keep = slice((top - first) * scale, (bottom - first) * scale)
        labels.append(label[:, keep])
        uncertainties.append(uncertainty[:, keep])
    return torch.cat(labels, dim=1), torch.cat(uncertainties, dim=1)


def _scan(logits: Tensor, scale: int, groups: int) -> tuple[Tensor, Tensor]:
    """Labels and uncertainty (N, H, W) of one strip.

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
    best = _upsampled(logits[:, 0::turns], scale)
    second: Tensor | None = None
    label: Tensor | None = None
    for turn in range(1, turns):
        new = _upsampled(logits[:, turn::turns], scale)
        # The last turn that raised the best is the label: turns ascend, so a maximum keeps it.
        raised = (new > best).to(torch.int32) * turn
        label = raised if label is None else torch.maximum(label, raised)
        lower = torch.minimum(best, new)
        second = lower if second is None else torch.maximum(second, lower)
        best = torch.maximum(best, new)
    if second is None or label is None:
        raise ValueError("at least 2 classes are needed")
    return _merged(best, second, label, turns)


def _merged(best: Tensor, second: Tensor, label: Tensor, turns: int) -> tuple[Tensor, Tensor]:
    """Merge the runs of classes, lowest classes first: (N, groups, H, W) -> (N, H, W)."""
    top, runner_up, winner = best[:, 0], second[:, 0], label[:, 0]
    for run in range(1, best.shape[1]):
        new = best[:, run]
        better = new > top
        winner = torch.where(better, label[:, run] + run * turns, winner)
        runner_up = torch.maximum(torch.maximum(runner_up, second[:, run]), torch.minimum(top, new))
        top = torch.maximum(top, new)
    return winner, runner_up - top


def _upsampled(planes: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return planes
    return F.interpolate(planes, scale_factor=float(scale), mode="bilinear", align_corners=False)
