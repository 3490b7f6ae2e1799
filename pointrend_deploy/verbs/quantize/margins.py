"""How far apart FP32's two best classes are where the labels of another precision differ."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

NEARLY_TIED: Final = 0.1
"""Two classes are nearly tied where their logits differ by less than this share of the root mean
square of all such differences in the picture. A stage without much noise has at most 0.03 of it."""
_PASSED_ON: Final = frozenset({"Cast", "Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def margin_values(model: ModelProto) -> tuple[str, ...]:
    """Name the values of a semantic FP32 graph from which the margins follow.

    Returns:
        Three names, of the last subdivision step: second best minus best logit of every pixel
        before the step, float32 of N * H * W elements; the pixels that it computes anew (N, K); and
        their logits (N, C, K). Empty if the graph has no such step.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    steps = [
        int(found[1]) for name in makers if (found := re.fullmatch(r"step(\d+)\.indices", name))
    ]
    if not steps:
        return ()
    indices = f"step{max(steps)}.indices"
    node = makers[indices]
    while node.op_type in _PASSED_ON and node.input[0] in makers:
        node = makers[node.input[0]]
    logits = f"step{max(steps)}.point_logits"
    if node.op_type not in ("PointRendUncertain", "TopK") or logits not in makers:
        return ()
    return node.input[0], indices, logits


def margins(uncertainty: Array, indices: Array, logits: Array) -> Array:
    """Compute FP32's margins: best minus second best logit, of every pixel of the canvas.

    Args:
        uncertainty: as :func:`margin_values` names them, like the others.
        indices: (N, K).
        logits: (N, C, K).

    Returns:
        float32 (N, H * W), 0 or more.
    """
    found: Array = -uncertainty.reshape(len(indices), -1)
    if logits.shape[1] > 1:
        second, best = np.partition(logits, -2, axis=1)[:, -2:].swapaxes(0, 1)
        np.put_along_axis(found, indices.reshape(len(indices), -1), best - second, axis=1)
    return found


def nearly_tied(margin: Array, differ: Array) -> float | None:
    """Return the share, 0..1, of differing pixels at which FP32's two best classes nearly tie.

    Args:
        margin: FP32's margins of a picture, any shape.
        differ: pixels whose labels differ, bool, of the same shape.

    Returns:
        The share; None if no pixel differs.
    """
    if not differ.any():
        return None
    bar = NEARLY_TIED * float(np.sqrt(np.mean(np.square(margin, dtype=np.float64))))
    return float((margin[differ] < bar).mean())
