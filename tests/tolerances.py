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

# Instance models. Boxes are in pixels of the network input unless said otherwise.
INSTANCE_COARSE = Tolerance(8e-5, 1e-3, "max abs, coarse mask logits at the golden's boxes")
INSTANCE_POINT_LOGITS = Tolerance(8e-5, 5e-4, "max abs at the golden's boxes and indices")
INSTANCE_STRAYS = Tolerance(
    10 / (28 * 784), 0.005, "share of K chosen by one side only, worst RoI; own is over all RoIs"
)
MASK_SIGNS = Tolerance(9 / (28 * 224 * 224), 1e-4, "share of all RoIs' pixels with another sign")
PASTED_MASKS = Tolerance(
    0.0, 1e-3, "1 - IoU of pasted masks, mean: one pixel of a mask of 900 is 1.1e-3 already"
)
PASTED_BORDERLINE = Tolerance(
    0.0, 1e-3, "distance from 0.5 of our probability at pixels that differ, of every mask"
)
BOXES = Tolerance(1.7e-3, 0.02, "pixels, matched by class and IoU")
SCORES = Tolerance(7e-5, 1e-3, "max abs, matched by class and IoU")
DETECTIONS_UNMATCHED = Tolerance(0.0, 0.0, "detections of one side only: a missing one is an error")
PROPOSALS_UNMATCHED = Tolerance(
    2 / 1000, 0.01, "share without a match of IoU >= 0.99; own is positions that differ"
)
PROPOSAL_LOGITS = Tolerance(8e-5, 1e-3, "max abs of matched proposals; own is that of features")
POOLED = Tolerance(5e-5, 5e-4, "max abs, features pooled or sampled in the golden's boxes")
BOX_HEAD_LOGITS = Tolerance(7e-5, 1e-3, "max abs, as for scores: class logits and box deltas")
MASK_PROBABILITIES = Tolerance(float("nan"), 1e-3, "max abs, 28 x 28; own was not measured")
NORMED_BOX_LOGITS = Tolerance(
    2.5e-3, 0.02, "max abs, class logits and deltas of the models with norms: they reach 12"
)
NORMED_MASK_LOGITS = Tolerance(2.3e-3, 0.02, "max abs, mask logits of the models with norms")
MASK_LOGITS_APART = Tolerance(
    9 / (28 * 224 * 224), 0.005, "share more than 1e-3 apart: as many as points may swap"
)
