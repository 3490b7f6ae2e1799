"""How the traceable modules call the ops that upsample logits and put recomputed points in.

Their contract is in ops.py. Each is one node when exported; run eagerly it is the reference's
arithmetic, in the type of the logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ops import (
    DOMAIN,
    PLUGIN_ATTRIBUTES,
    REFINE_LABELS,
    REFINE_LOGITS,
    UPSAMPLE_LABELS,
    UPSAMPLE_SCALES,
    UPSAMPLE_UNCERTAINTY,
    VERSION,
    node,
)
from pointrend_deploy.model.pointrend import uncertainty as of_two_best


def upsample_uncertainty(logits: Tensor, scale: int) -> Tensor:
    """Uncertainty of upsampled logits: one PointRendUpsampleUncertainty node when exported.

    Args:
        logits: (N, C, h, w).
        scale: of ``UPSAMPLE_SCALES``.

    Returns:
        (N, h * w * scale**2), of the logits' type when run eagerly, else float32.

    Raises:
        DeployError: fewer than two classes, or another scale.
    """
    _check_upsampling(scale, logits.shape[1])
    if not torch.compiler.is_exporting():
        return of_two_best(_upsampled(logits, scale)).flatten(1)
    shape = _flat_shape(logits, scale)
    return node(UPSAMPLE_UNCERTAINTY, (logits,), torch.float32, shape, scale=scale)


def upsample_labels(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Uncertainty and labels of upsampled logits: one PointRendUpsampleLabels node when exported.

    Args and errors are those of :func:`upsample_uncertainty`.

    Returns:
        The same uncertainty, and labels (N, h * w * scale**2) int32.
    """
    _check_upsampling(scale, logits.shape[1])
    if not torch.compiler.is_exporting():
        up = _upsampled(logits, scale)
        return of_two_best(up).flatten(1), up.argmax(dim=1).flatten(1).to(torch.int32)
    shape = _flat_shape(logits, scale)
    uncertainty, labels = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{UPSAMPLE_LABELS}",
        (logits,),
        {"scale": scale, **PLUGIN_ATTRIBUTES},
        dtypes=(torch.float32, torch.int32),
        shapes=(shape, shape),
        version=VERSION,
    )
    return uncertainty, labels


def refine_logits(logits: Tensor, indices: Tensor, point_logits: Tensor, scale: int) -> Tensor:
    """Upsample logits and put point logits in: one PointRendRefineLogits node when exported.

    Args:
        logits: (N, C, h, w).
        indices: (N, K) int64, flat, of cells of the result; none twice.
        point_logits: (N, C, K).
        scale: of ``UPSAMPLE_SCALES``.

    Returns:
        (N, C, h * scale, w * scale), of the logits' type when run eagerly, else float32.

    Raises:
        DeployError: another scale.
    """
    _check_upsampling(scale)
    n, classes, h, w = logits.shape
    shape = (n, classes, h * scale, w * scale)
    if not torch.compiler.is_exporting():
        where = indices.unsqueeze(1).expand(-1, classes, -1)
        flat = _upsampled(logits, scale).flatten(2).scatter(2, where, point_logits)
        return flat.reshape(shape)
    inputs = (logits, indices, point_logits)
    return node(REFINE_LOGITS, inputs, torch.float32, shape, scale=scale)


def refine_labels(labels: Tensor, indices: Tensor, point_logits: Tensor) -> Tensor:
    """Put the labels of recomputed points in: one PointRendRefineLabels node when exported.

    Args:
        labels: (N, L) int32.
        indices: (N, K) int64, flat; none twice.
        point_logits: (N, C, K).

    Returns:
        (N, L) int32.
    """
    if not torch.compiler.is_exporting():
        return labels.scatter(1, indices, point_logits.argmax(dim=1).to(labels.dtype))
    inputs = (labels, indices, point_logits)
    return node(REFINE_LABELS, inputs, torch.int32, tuple(labels.shape))


def _check_upsampling(scale: int, classes: int = 2) -> None:
    if scale not in UPSAMPLE_SCALES:
        raise DeployError(f"logits are upsampled by 2, 4, 8 or 16, not by {scale}")
    if classes < 2:
        raise DeployError(f"uncertainty needs two classes at least, not {classes}")


def _flat_shape(logits: Tensor, scale: int) -> tuple[int, int]:
    return logits.shape[0], logits.shape[-2] * logits.shape[-1] * scale**2


def _upsampled(logits: Tensor, scale: int) -> Tensor:
    return F.interpolate(logits, scale_factor=float(scale), mode="bilinear", align_corners=False)
