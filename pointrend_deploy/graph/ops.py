"""The custom ops of domain ``pointrend``: their contract, and how the traceable modules call them.

PointRendSample, attributes ``plugin_namespace`` and ``plugin_version``:
    features (N, C, H, W), points (N, P, 2) float32, (x, y) in [0, 1] of the map
    -> (N, C, P) of the features' type.
    Bilinear, cell centres at (i + 0.5) / size, zeros outside the map.

PointRendUncertain, attributes ``k``, ``plugin_namespace`` and ``plugin_version``:
    uncertainty (N, L) float32, higher is more uncertain
    -> flat indices (N, k) int64, 1 <= k <= L.
    The k highest, ties to the lower index: the set is exact, the order of its members is free
    (the body gives them in descending order, the plugin in ascending order of index).

TensorRT's parser matches op names only, not domains, so both names are unlike any ONNX or TensorRT
op. Arity is fixed. The bodies, standard ops only, are in bodies.py.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pointrend_deploy.model.point_ops import point_sample

DOMAIN: Final = "pointrend"
VERSION: Final = 1
SAMPLE: Final = "PointRendSample"
UNCERTAIN: Final = "PointRendUncertain"
PLUGIN_ATTRIBUTES: Final = {"plugin_namespace": "pointrend", "plugin_version": "1"}


def sample(features: Tensor, points: Tensor) -> Tensor:
    """(N, C, H, W) at (N, P, 2) -> (N, C, P): one PointRendSample node when exported.

    Run eagerly it is the reference's ``point_sample``.
    """
    if not torch.compiler.is_exporting():
        return point_sample(features, points)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{SAMPLE}",
        (features, points),
        dict(PLUGIN_ATTRIBUTES),
        dtype=features.dtype,
        shape=(features.shape[0], features.shape[1], points.shape[1]),
        version=VERSION,
    )


def most_uncertain(uncertainty: Tensor, k: int) -> Tensor:
    """(N, L) -> flat indices (N, k) int64: one PointRendUncertain node when exported.

    Run eagerly it is a stable sort: descending, ties to the lower index.
    """
    if not torch.compiler.is_exporting():
        order = torch.sort(uncertainty, dim=1, descending=True, stable=True).indices
        return order[:, :k]
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{UNCERTAIN}",
        (uncertainty,),
        {"k": k, **PLUGIN_ATTRIBUTES},
        dtype=torch.int64,
        shape=(uncertainty.shape[0], k),
        version=VERSION,
    )


def integer_quotient(numerator: Tensor, divisor: int) -> Tensor:
    """Non-negative int64 divided by a positive int, rounded down: one Div node when exported.

    The exporter's own translation of an integer division goes through float32, which is exact up
    to 2**24 cells only, and through five more nodes.
    """
    if not torch.compiler.is_exporting():
        return torch.div(numerator, divisor, rounding_mode="trunc")
    return torch.onnx.ops.symbolic(
        "Div",
        (numerator, torch.tensor(divisor)),
        {},
        dtype=torch.int64,
        shape=tuple(numerator.shape),
    )


def maximum3(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """The highest of three equally shaped tensors: one Max node when exported."""
    if not torch.compiler.is_exporting():
        return torch.maximum(torch.maximum(first, second), third)
    return torch.onnx.ops.symbolic(
        "Max", (first, second, third), {}, dtype=first.dtype, shape=tuple(first.shape)
    )
