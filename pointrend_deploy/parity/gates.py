"""Every tolerance of this package's comparisons, in one place, each with its reason.

The absolute tolerances were measured with activations of order one, where detectron2 in FP32
differs from itself in float64 by at most 8e-5 (features), 1.7e-4 (coarse logits) and 2.5e-4 (point
logits). Rounding grows with what is rounded, and a trained model's logits may reach +-30. So a
tensor's limit is the tolerance times ``max(1, rms(reference))``: it never falls below the measured
one, and grows in proportion where the activations do. A wrong algorithm changes values by a share
of their own size, so it does not slip through a limit of 0.05 to 0.1 % of that size.

These limits are for FP32 graphs, which may differ from PyTorch by rounding only. FP16 and INT8
graphs compute something else on purpose, so their accuracy is limited instead: scores against a
truth may fall only so far below those of the FP32 graph on the same pictures. A gain always passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.record.precisions import PrecisionColumn, PrecisionGate, PrecisionName
from pointrend_deploy.parity.record.rows import Op
from pointrend_deploy.parity.record.runs import Gate

Array = npt.NDArray[Any]


class Tolerance(msgspec.Struct, frozen=True):
    """A limit, and the reason for it."""

    limit: float
    reason: str


FEATURES = Tolerance(
    5e-4, "FPN features: six times the difference of FP32 from float64 (8e-5) at order-one values"
)
COARSE = Tolerance(1e-3, "coarse logits: six times the difference of FP32 from float64 (1.7e-4)")
POINT_LOGITS = Tolerance(
    1e-3,
    "point logits, at points both sides chose: four times the difference of FP32 from float64 "
    "(2.5e-4)",
)
LOGITS = Tolerance(
    1e-3,
    "final logits, outside the reach of points only one side chose: they are point logits and "
    "interpolations of them",
)
STRAYS = Tolerance(
    5e-3,
    "points that only one side chose: FP32 against float64 exchanges up to 6 of 8192 points; 0.5 % "
    "leaves room for another summation order and none for another selection",
)
NEAR_TIE = Tolerance(
    1e-3, "a stray point lies this near the K-th uncertainty, as logits move by at most that much"
)
ROUNDING = Tolerance(
    1e-6, "uncertainties this near the K-th are equal up to rounding: either choice is right"
)
LABELS = Tolerance(
    0.9998, "label agreement: FP32 against float64 changes up to 20 of 524,288 pixels (0.004 %)"
)
BOXES = Tolerance(
    0.05,
    "pixels, boxes of one proposal or detection: detectron2 in FP32 is 0.0017 px from float64; a "
    "twentieth of a pixel moves no mask",
)
SCORES = Tolerance(1e-3, "detection scores: fourteen times the difference of FP32 from float64")
PROPOSALS = Tolerance(
    0.01,
    "proposals only one side has, each a near tie: FP32 against float64 exchanges 2 of 1000",
)
OBJECTNESS = Tolerance(
    1e-3, "objectness logits this near one another may stand in either order: they round as scores"
)
OVERLAP = Tolerance(
    1e-4, "IoUs this near the threshold of a suppression, beside what the boxes' rounding moves"
)
PASTED_MEAN = Tolerance(0.999, "mean IoU of the masks in the picture, detection by detection")
PASTED_LEAST = Tolerance(0.99, "least IoU of a mask in the picture")
STORED = Tolerance(
    1e-6, "masks as the graph gives them, against what their form says of its mask logits"
)


def rms(values: Array) -> float:
    """Return the root mean square in float64; 0 for no values.

    It is summed in pieces, so that memory stays small.
    """
    flat = np.asarray(values).reshape(-1)
    total = 0.0
    for start in range(0, flat.size, 1 << 20):
        piece = flat[start : start + (1 << 20)].astype(np.float64)
        total += float(np.square(piece).sum())
    return math.sqrt(total / flat.size) if flat.size else 0.0


def scaled(tolerance: Tolerance, reference: Array) -> float:
    """Return the limit for a tensor: the tolerance times ``max(1, rms(reference))``."""
    size = rms(reference)
    return tolerance.limit * max(1.0, size if math.isfinite(size) else 1.0)


def tensor_tolerance(stage: str) -> Tolerance:
    """Return the tolerance of a stage by its name.

    Args:
        stage: ``p2`` and up, ``coarse``, ``step<t>.point_logits``, ``logits`` or ``mask_logits``.
    """
    if stage == "coarse":
        return COARSE
    if stage in ("logits", "mask_logits"):
        return LOGITS
    return POINT_LOGITS if stage.endswith(".point_logits") else FEATURES


FEW = 2
"""Points or pixels that near ties may always decide the other way, on a grid of any size. The
shares written above allow as many on 10,000 pixels, or on 400 points."""


def strays_limit(k: int) -> float:
    """Return the largest share (0..1) of an image's ``k`` points that may be strays.

    It is the written share, or :data:`FEW` points where that is more.
    """
    return max(STRAYS.limit, FEW / k) if k else STRAYS.limit


def pasted_limits(unions: Sequence[int]) -> tuple[float, float]:
    """Return the least mean IoU and the least single IoU that pass.

    They are the written ones, or what :data:`FEW` pixels of the smallest mask cost where that is
    more: a pixel on the edge of a mask has a probability near one half, and one pixel of a mask of
    100 changes its IoU by 0.01.

    Args:
        unions: pixels in the union of each pair of masks.
    """
    if not unions:
        return PASTED_MEAN.limit, PASTED_LEAST.limit
    cost = FEW / min(unions)
    return min(PASTED_MEAN.limit, 1.0 - cost / len(unions)), min(PASTED_LEAST.limit, 1.0 - cost)


def labels_limit(pixels: int) -> float:
    """Return the smallest share (0..1) of ``pixels`` whose labels must agree.

    It is the written share, or all but :data:`FEW` pixels where that is less.
    """
    return min(LABELS.limit, 1.0 - FEW / pixels) if pixels else LABELS.limit


def labels_problem(agreement: float, pixels: int) -> str:
    """Say in a few words what is wrong with a label agreement; empty where it is enough.

    Args:
        agreement: share (0..1) of equal labels.
        pixels: number of labels compared.
    """
    limit = labels_limit(pixels)
    if agreement >= limit:
        return ""
    allowed = 100 * (1 - limit)
    return f"{100 * (1 - agreement):.4f} % of the labels differ, more than {allowed:.2f} %"


def gate(name: str, stage: str, value: float | None, op: Op, limit: float, reason: str) -> Gate:
    """Compare a value with its limit; a value that is missing or not a number fails.

    Args:
        name: what is limited.
        stage: of the network.
        value: the figure found.
        op: ``<=`` for a largest value that passes, ``>=`` for a smallest one.
        limit: that value.
        reason: why the limit is what it is.
    """
    passed = _within(value, op, limit)
    return Gate(
        name=name, stage=stage, value=value, limit=limit, op=op, reason=reason, passed=passed
    )


FP16_DROP = Tolerance(
    0.001,
    "with its 11 significant bits FP16 changed mIoU by +0.02 and mask AP by +0.26 points on the "
    "demonstration scenes; a loss of 0.1 point is more than it needs",
)
INT8_DROP = Tolerance(
    0.005, "INT8 steps are as coarse as 1/127 of a range; 0.5 point is what calibration must keep"
)
INT8_BOUNDARY_DROP = Tolerance(
    0.01,
    "outlines are what PointRend is for; their bands, 2 px wide or 2 % of the diagonal, have few "
    "pixels, each of which weighs more than in mIoU: 1 point",
)
FP16_LABELS = Tolerance(
    0.9995,
    "without a truth only labels can be held; FP16 changed 0.032 % of them on 36 generated scenes "
    "and 0.049 % on 200 others",
)
SAME_ANSWERS = Tolerance(
    0.95,
    "a score counts right answers, and two precisions may score alike on different ones: where one "
    "answer in twenty changes, whoever relies on single answers must be told",
)
ENGINE_REASON: Final = (
    "an engine and its graph differ by rounding alone; in FP16 and INT8 it may decide twice as "
    "many answers as it does between the graph and the FP32 graph on the same pictures, and never "
    "more than one in twenty"
)
READABLE = Tolerance(0, "an answer with NaN, or out of its range, is no answer")
UNREADABLE: Final = "pictures with answers that cannot be right"
DROPS: Final[Mapping[PrecisionName, Mapping[str, Tolerance]]] = {
    "fp32": {},
    "fp16": {"mIoU": FP16_DROP, "mask AP": FP16_DROP},
    "int8": {
        "mIoU": INT8_DROP,
        "boundary IoU, 2 px": INT8_BOUNDARY_DROP,
        "mask AP": INT8_DROP,
        "boundary AP": INT8_BOUNDARY_DROP,
    },
}
"""Largest drops that pass, by precision and by the score's name, as shares: 0.01 is one point."""


def drop_gates(
    precision: PrecisionName,
    fp32: Mapping[str, float | None],
    found: Mapping[str, float | None],
) -> tuple[PrecisionGate, ...]:
    """Compare a precision's scores with the FP32 column's.

    Args:
        precision: the precision.
        fp32: the FP32 column's scores in 0..1, by the names of ``DROPS``. A score that is None
            (the truth cannot give it) has no gate.
        found: the precision's own scores. One that is missing where FP32 has it fails.
    """
    held = []
    for name, tolerance in DROPS[precision].items():
        before, after = fp32.get(name), found.get(name)
        if before is None:
            continue
        drop = None if after is None else before - after
        held.append(_precision_gate(f"drop of {name}", drop, "<=", tolerance))
    return tuple(held)


def label_gates(
    precision: PrecisionName, agreement: float | None, pixels: int
) -> tuple[PrecisionGate, ...]:
    """Compare FP16's labels with the FP32 column's; used where there is no truth.

    Args:
        precision: the precision; any but ``fp16`` has no such gate.
        agreement: share (0..1) of equal labels.
        pixels: number of labels compared; :data:`FEW` of them may always differ.
    """
    if precision != "fp16":
        return ()
    limit = min(FP16_LABELS.limit, 1.0 - FEW / pixels) if pixels else FP16_LABELS.limit
    tolerance = Tolerance(limit, FP16_LABELS.reason)
    return (_precision_gate("labels that agree with fp32", agreement, ">=", tolerance),)


def detections_limit(total: int) -> float:
    """Return the least share (0..1) of ``total`` detections that two FP32 runs must both have.

    A suppression may keep the other of two boxes that nearly tie: as many as of the proposals, or
    :data:`FEW` of twenty and more; none of fewer than ten.
    """
    allowed = max(int(PROPOSALS.limit * total), min(FEW, total // 10))
    return 1.0 - allowed / total if total else 1.0


def engine_limit(fp32_limit: float, graph: float | None) -> float:
    """Return the least share (0..1) of equal answers of an engine beside its graph.

    Args:
        fp32_limit: that of an FP32 engine.
        graph: of a graph of FP16 or INT8, the share of its answers that the FP32 graph gives too,
            on the same pictures; None for an FP32 engine. See :data:`ENGINE_REASON`.
    """
    if graph is None:
        return fp32_limit
    return min(fp32_limit, max(SAME_ANSWERS.limit, fp32_limit - 2 * (1.0 - graph)))


def cautions(column: PrecisionColumn) -> tuple[PrecisionGate, ...]:
    """Compare the answers of a lower precision with the FP32 column's, one by one.

    A caution that is not met is no failed gate, but such a column is not called passed.

    Args:
        column: with its figures; a record of an earlier version will do.

    Returns:
        One for each share of equal answers that is known; none for fp32.
    """
    shares: dict[str, tuple[int | float, int]] = {}
    found = column.found_fp32
    if found is not None:
        shares["share of fp32's detections found again"] = found.matched, found.theirs
        shares["share of its detections that fp32 has"] = found.matched, found.ours
    if column.agrees_fp32 is not None:
        shares["share of labels equal to fp32's"] = column.agrees_fp32, 1
    return tuple(
        _precision_gate(name, part / whole, ">=", SAME_ANSWERS)
        for name, (part, whole) in shares.items()
        if whole
    )


def readable_gate(unreadable: int) -> PrecisionGate:
    """Return the gate on ``unreadable``, the number of pictures whose answers cannot be right.

    It passes at zero only.
    """
    return _precision_gate(UNREADABLE, float(unreadable), "<=", READABLE)


def accuracy_gates(column: PrecisionColumn) -> tuple[PrecisionGate, ...]:
    """Return the gates on a column's accuracy; none where there was nothing to compare it with."""
    return tuple(gate for gate in column.gates if gate.name != UNREADABLE)


def ungated(precisions: Mapping[PrecisionName, bool], truth_options: str) -> tuple[str, ...]:
    """Say in words which columns have no gate on accuracy, because no truth was given.

    Args:
        precisions: for each column whether any gate on its accuracy applies.
        truth_options: the options that give a truth, such as ``--labels``.
    """
    return tuple(
        f"{name}: its accuracy is not gated, as no truth was given ({truth_options})"
        for name, held in precisions.items()
        if name != "fp32" and not held
    )


def _precision_gate(name: str, value: float | None, op: Op, tolerance: Tolerance) -> PrecisionGate:
    limit, reason = tolerance.limit, tolerance.reason
    passed = _within(value, op, limit)
    return PrecisionGate(name=name, value=value, limit=limit, op=op, reason=reason, passed=passed)


def _within(value: float | None, op: Op, limit: float) -> bool:
    return value is not None and bool(value <= limit if op == "<=" else value >= limit)
