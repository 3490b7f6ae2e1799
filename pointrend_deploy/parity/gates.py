"""Every tolerance of this package's comparisons, in one place, each with its reason.

The absolute tolerances were measured with activations of order one, where detectron2 in FP32
differs from itself in float64 by at most 8e-5 (features), 1.7e-4 (coarse logits) and 2.5e-4 (point
logits). Rounding grows with what is rounded, and a trained model's logits may reach +-30. So a
tensor's limit is the tolerance times ``max(1, rms(reference))``: it never falls below the measured
one, and grows in proportion where the activations do. A wrong algorithm changes values by a share
of their own size, so it does not slip through a limit of 0.05 to 0.1 % of that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.results import Gate

Array = npt.NDArray[Any]


class Tolerance(msgspec.Struct, frozen=True):
    """A limit and why it is what it is."""

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
    """Root mean square in float64, in pieces so that memory stays small; 0 for no values."""
    flat = np.asarray(values).reshape(-1)
    total = 0.0
    for start in range(0, flat.size, 1 << 20):
        piece = flat[start : start + (1 << 20)].astype(np.float64)
        total += float(np.square(piece).sum())
    return math.sqrt(total / flat.size) if flat.size else 0.0


def scaled(tolerance: Tolerance, reference: Array) -> float:
    """The limit for a tensor: the tolerance times ``max(1, rms(reference))``."""
    size = rms(reference)
    return tolerance.limit * max(1.0, size if math.isfinite(size) else 1.0)


def tensor_tolerance(stage: str) -> Tolerance:
    """The tolerance of a stage by its name: p2.., coarse, step<t>.point_logits, (mask_)logits."""
    if stage == "coarse":
        return COARSE
    if stage in ("logits", "mask_logits"):
        return LOGITS
    return POINT_LOGITS if stage.endswith(".point_logits") else FEATURES


FEW = 2
"""Near ties are counted in points and pixels: so many may fall the other way on any grid, however
small a share of it two are. On 10,000 pixels, or 400 points, the written shares allow as many."""


def strays_limit(k: int) -> float:
    """Largest share of ``k`` points an image that may be strays: the written one, or FEW."""
    return max(STRAYS.limit, FEW / k) if k else STRAYS.limit


def pasted_limits(unions: Sequence[int]) -> tuple[float, float]:
    """Least mean and least single IoU of masks whose unions have so many pixels.

    They are the written ones, or what FEW pixels of the smallest mask cost: a pixel on the edge of
    a mask has a probability near one half, and in a mask of 100 pixels it weighs 0.01.
    """
    if not unions:
        return PASTED_MEAN.limit, PASTED_LEAST.limit
    cost = FEW / min(unions)
    return min(PASTED_MEAN.limit, 1.0 - cost / len(unions)), min(PASTED_LEAST.limit, 1.0 - cost)


def labels_limit(pixels: int) -> float:
    """Smallest share of so many pixels that must agree: the written one, or all but FEW."""
    return min(LABELS.limit, 1.0 - FEW / pixels) if pixels else LABELS.limit


def labels_problem(agreement: float, pixels: int) -> str:
    """What is wrong with a label agreement, in a few words; empty where it is enough."""
    limit = labels_limit(pixels)
    if agreement >= limit:
        return ""
    allowed = 100 * (1 - limit)
    return f"{100 * (1 - agreement):.4f} % of the labels differ, more than {allowed:.2f} %"


def gate(
    name: str,
    stage: str,
    value: float | None,
    op: Literal["<=", ">="],
    limit: float,
    reason: str,
) -> Gate:
    """Hold a value against a limit; a value that is missing or not a number fails."""
    good = value is not None and (value <= limit if op == "<=" else value >= limit)
    return Gate(
        name=name, stage=stage, value=value, limit=limit, op=op, reason=reason, passed=bool(good)
    )
