"""Every tolerance of the tests against detectron2's goldens, with its reason, in one place.

``own`` is the difference of detectron2 FP32 against itself in float64, measured once when the
goldens were made; ``accept`` leaves room for another order of summation and no more.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    own: float
    accept: float
    unit: str


FEATURES = Tolerance(8e-5, 5e-4, "max abs, p2..p6")
COARSE = Tolerance(1.7e-4, 1e-3, "max abs, coarse logits")
FINE = Tolerance(8e-5, 5e-4, "max abs, sampled p2: features sampled at the same points")
POINT_LOGITS = Tolerance(2.5e-4, 1e-3, "max abs at the golden's indices")
STRAY_POINTS = Tolerance(6 / 8192, 0.005, "share of K chosen by one side only")
STRAY_UNCERTAINTY = Tolerance(0.0, 1e-3, "a stray's distance from the K-th uncertainty")
LABELS = Tolerance(20 / 524288, 2e-4, "share of pixels")
LOGITS_OFF_POINTS = Tolerance(2.5e-4, 1e-3, "max abs where neither side swapped a point")
