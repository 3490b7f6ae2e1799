"""Masks of a graph compared with the reference's: stage by stage, as stored, and in the picture.

The stages are compared on the graph's own boxes and classes, so that no detection that differs can
hide or cause a difference here. R is the number of RoIs of all pictures together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.forms import MaskForm
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.record.runs import Gate, StageRow
from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.parity.subdivision.stages import SubdivisionStages
from pointrend_deploy.parity.tensors import compare_tensor, missing
from pointrend_deploy.run.instance.masks import Patch, paste_mask

Array = npt.NDArray[Any]


def compare_mask_stages(
    reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> SubdivisionStages:
    """Compare every stage of ``InstanceModel.mask_stages`` with a graph's on the same boxes.

    Args:
        reference: ``coarse`` (R, C, s, s), ``step0.point_logits`` (R, 1, P), ``step<t>.indices``
            (R, K), ``step<t>.point_logits`` (R, 1, K), ``mask_logits`` (R, 1, S, S) in order; with
            the standard mask head ``mask_logits`` alone. R is at least 1.
        candidate: the same names and shapes; a stage it lacks fails.
    """
    maps: Iterator[Array] = iter(())
    if "step0.point_logits" in reference:  # the whole first grid (R, 1, side**2), row by row
        first = reference["step0.point_logits"]
        side = round(first.shape[2] ** 0.5)
        maps = replay.uncertainty_maps(reference, first.reshape(len(first), 1, side, side), first=1)
    steps = SubdivisionStages(reference, candidate, maps, disjoint_known=True)
    for name, expected in reference.items():
        if name == "mask_logits":
            row = steps.final_logits(name)
            steps.add(missing(name, expected) if row is None else row)
        else:
            steps.compare(name)
    return steps


@dataclass(frozen=True)
class RoIs:
    """Boxes of all pictures, the masks a graph computed for them, and its stages.

    Attributes:
        pictures: (R,) integers, the number of each box's picture, ascending.
        boxes: (R, 4) in pixels of the canvas.
        classes: (R,) integers.
        stages: by the reference's names, in the reference's shapes (R, ...).
        masks: (R, S, S), the graph's output.
    """

    pictures: Array
    boxes: Array
    classes: Array
    stages: Mapping[str, Array]
    masks: Array


def masks_rows(
    exercised: Sequence[RoIs],
    form: MaskForm,
    overlaps: Sequence[tuple[int, int]],
    problem: str = "",
) -> tuple[StageRow, list[Gate]]:
    """Make the row of the stage ``masks`` and its gates.

    Args:
        exercised: sets of RoIs, none empty.
        form: of the masks.
        overlaps: for each matched detection, pixels of intersection and of union in the picture.
        problem: what is known to be wrong already; empty where nothing is.
    """
    problems = [problem] if problem else []
    row = StageRow(name="masks", kind="masks", shape=(), passed=True)
    held: list[Gate] = []
    if exercised:
        row, gate = compare_stored(exercised, form)
        held.append(gate)
        problems += [row.problem] if row.problem else []
    more = pasted_gates(overlaps)
    held += more
    problems += [
        f"{gate.name} {gate.value:.4f}, below {gate.limit:.4f}"
        for gate in more
        if not gate and gate.value is not None
    ]
    return msgspec.structs.replace(
        row,
        passed=not problems,
        agreement=more[0].value if more else None,
        problem="; ".join(problems),
    ), held


def compare_stored(exercised: Sequence[RoIs], form: MaskForm) -> tuple[StageRow, Gate]:
    """Compare a graph's ``masks`` with its own ``mask_logits`` brought into their form.

    Args:
        exercised: sets of RoIs, at least one; ``mask_logits`` (R, 1, S, S) is among their stages.
        form: ``prob``, ``prob-u8`` (round(255 p); either neighbour where p lies between two), or
            ``logits``.
    """
    limit, dtype = gates.STORED.limit, np.dtype(np.uint8 if form == "prob-u8" else np.float32)
    masks = np.concatenate([each.masks for each in exercised])
    problem, row = "", None
    if any("mask_logits" not in each.stages for each in exercised):
        problem = "no mask logits to compare them with"
    elif masks.dtype != dtype:
        problem = f"type {masks.dtype} where {dtype} is expected"
    else:
        logits = np.concatenate([each.stages["mask_logits"][:, 0] for each in exercised])
        expected = logits if form == "logits" else probabilities(logits)
        if form == "prob-u8":
            masks, limit = masks.astype(np.float32) / np.float32(255), 0.5 / 255 + limit
        row = compare_tensor("masks", expected, masks, limit)
    if row is None:
        row = StageRow(name="masks", kind="masks", shape=masks.shape, passed=False, problem=problem)
    row = msgspec.structs.replace(row, kind="masks", compared=len(masks))
    reason = gates.STORED.reason
    return row, gates.gate("largest difference", "masks", row.max_abs, "<=", limit, reason)


def probabilities(logits: Array) -> npt.NDArray[np.float32]:
    """Compute the sigmoid of logits of any shape: in float64, returned as float32, 0 to 1."""
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64))), np.float32)


def pasted_gates(overlaps: Sequence[tuple[int, int]]) -> list[Gate]:
    """Make the gates on the mean and the least IoU of masks; none where there are no masks.

    Args:
        overlaps: for each mask, pixels of intersection and of union; empty unions are left out.
    """
    held = [(both, union) for both, union in overlaps if union]
    if not held:
        return []
    values = [both / union for both, union in held]
    mean, least = gates.pasted_limits([union for _, union in held])
    reasons = gates.PASTED_MEAN.reason, gates.PASTED_LEAST.reason
    return [
        gates.gate("mean IoU", "masks", float(np.mean(values)), ">=", mean, reasons[0]),
        gates.gate("least IoU", "masks", min(values), ">=", least, reasons[1]),
    ]


def overlaps_of(
    rois: RoIs,
    pairs: Sequence[npt.NDArray[np.int64]],
    theirs: Sequence[tuple[tuple[int, int], Array, Array]],
) -> list[tuple[int, int]]:
    """Count the pixels that matched detections' masks share, in the fitted picture.

    Args:
        rois: the graph's detections of all pictures, those of each in order.
        pairs: for each picture (M, 2): row of the graph, row of the reference.
        theirs: for each picture its fitted size, the reference's boxes (R, 4) and mask logits
            (R, S, S).

    Returns:
        Pixels of intersection and of union for each matched detection; those with an empty box on
        either side are left out.
    """
    found = []
    logits = rois.stages.get("mask_logits")
    if logits is None:
        return []
    for picture, (matched, (hw, boxes, their_logits)) in enumerate(zip(pairs, theirs, strict=True)):
        rows = np.flatnonzero(rois.pictures == picture)
        for ours, other in matched:
            row = rows[ours]
            if _empty(rois.boxes[row]) or _empty(boxes[other]):
                continue
            left = paste_mask(probabilities(logits[row, 0]), rois.boxes[row], hw)
            right = paste_mask(probabilities(their_logits[other]), boxes[other], hw)
            found.append(overlap(left, right))
    return found


def overlap(a: Patch, b: Patch) -> tuple[int, int]:
    """Count the pixels of intersection and of union of two masks in one picture."""
    top, left = max(a[0], b[0]), max(a[1], b[1])
    bottom = min(a[0] + a[2].shape[0], b[0] + b[2].shape[0])
    right = min(a[1] + a[2].shape[1], b[1] + b[2].shape[1])
    both = 0
    if top < bottom and left < right:
        parts = [p[2][top - p[0] : bottom - p[0], left - p[1] : right - p[1]] for p in (a, b)]
        both = int((parts[0] & parts[1]).sum())
    return both, int(a[2].sum()) + int(b[2].sum()) - both


def rest_is_zero(outputs: Mapping[str, Array]) -> str:
    """Say what is wrong with rows of ``masks`` (N, D, S, S) past the count; empty if nothing."""
    masks = outputs.get("masks")
    if masks is None:
        return ""
    for row, count in zip(masks, outputs["num_detections"], strict=True):
        if (row[max(0, int(count)) :] != 0).any():  # NaN is not 0
            return "rows past num_detections are not zero"
    return ""


def _empty(box: Array) -> bool:
    return not (box[2] > box[0] and box[3] > box[1])
