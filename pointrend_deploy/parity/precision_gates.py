"""Every limit on what a lower precision may lose, in one place, each with its reason.

FP32 graphs are held to rounding (see ``gates``). FP16 and INT8 graphs compute something else on
purpose, so what counts is their accuracy: scores against a truth, beside those of the FP32 column
on the same pictures. Only drops fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pointrend_deploy.parity.gates import FEW, Tolerance
from pointrend_deploy.parity.precision_results import PrecisionColumn, PrecisionGate, PrecisionName

FP16_DROP = Tolerance(
    0.001,
    "FP16 has 11 significant bits: a graph whose coordinates and selection stay in FP32 moves "
    "single pixels, so a drop of more than 0.1 point is a fault and not rounding",
)
INT8_DROP = Tolerance(
    0.005, "INT8 steps are as coarse as 1/127 of a range; 0.5 point is what calibration must keep"
)
INT8_BOUNDARY_DROP = Tolerance(
    0.01,
    "outlines are where PointRend earns its keep and where INT8 costs most, in bands 2 px wide or "
    "2 % of the diagonal: 1 point",
)
FP16_LABELS = Tolerance(
    0.9995, "without a truth only labels can be held: FP16 moves pixels that two classes nearly tie"
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
"""What is gated against a truth, by precision and by the figure's name; shares, 0.01 a point."""


def drop_gates(
    precision: PrecisionName,
    fp32: Mapping[str, float | None],
    found: Mapping[str, float | None],
) -> tuple[PrecisionGate, ...]:
    """Hold a precision's scores against the FP32 column's.

    Args:
        precision: which.
        fp32: scores in 0..1 by the names of ``DROPS``; what the truth does not score is None and
            not held.
        found: the precision's own. One that is missing where FP32 has it fails.
    """
    held = []
    for name, tolerance in DROPS[precision].items():
        before, after = fp32.get(name), found.get(name)
        if before is None:
            continue
        drop = None if after is None else before - after
        held.append(_gate(f"drop of {name}", drop, "<=", tolerance.limit, tolerance.reason))
    return tuple(held)


def label_gates(
    precision: PrecisionName, agreement: float | None, pixels: int
) -> tuple[PrecisionGate, ...]:
    """Hold labels against the FP32 column's where there is no truth; FP16 only.

    Args:
        precision: which.
        agreement: share of equal labels.
        pixels: how many were compared; ``gates.FEW`` of them may always differ.
    """
    if precision != "fp16":
        return ()
    limit = min(FP16_LABELS.limit, 1.0 - FEW / pixels) if pixels else FP16_LABELS.limit
    name = "labels that agree with fp32"
    return (_gate(name, agreement, ">=", limit, FP16_LABELS.reason),)


def readable_gate(unreadable: int) -> PrecisionGate:
    """No picture's answers may be ones that cannot be right."""
    return _gate(UNREADABLE, float(unreadable), "<=", READABLE.limit, READABLE.reason)


def accuracy_gates(column: PrecisionColumn) -> tuple[PrecisionGate, ...]:
    """The gates of a column that hold its accuracy; none where there was nothing to hold it to."""
    return tuple(gate for gate in column.gates if gate.name != UNREADABLE)


def ungated(precisions: Mapping[PrecisionName, bool], task: str) -> tuple[str, ...]:
    """What is not held without a truth, in words.

    Args:
        precisions: which columns there are, and whether any gate on accuracy applies to each.
        task: of the bundle.
    """
    give = "--labels" if task == "semantic" else "--coco or --labels"
    return tuple(
        f"{name}: its accuracy is not gated, as no truth was given ({give})"
        for name, held in precisions.items()
        if name != "fp32" and not held
    )


def _gate(
    name: str, value: float | None, op: Literal["<=", ">="], limit: float, reason: str
) -> PrecisionGate:
    good = value is not None and (value <= limit if op == "<=" else value >= limit)
    return PrecisionGate(
        name=name, value=value, limit=limit, op=op, reason=reason, passed=bool(good)
    )
