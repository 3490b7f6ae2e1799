"""The standard ops a graph may contain, and the values their attributes may have.

All of them are ops of TensorRT 10.3's parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pointrend_deploy.recipe.instance import MAX_SAMPLING

_NETWORKS = """
Add And Cast Clip Concat Constant Conv Div Equal Expand Gather Greater Identity
InstanceNormalization Less Max MaxPool Min Mul Pad Relu Reshape Resize Slice Split Squeeze Sub
Transpose Unsqueeze Where
"""
_POINTS = "ArgMax GridSample ScatterElements TopK"
_BOXES = """
Abs ConvTranspose Exp GatherElements Gemm LessOrEqual MatMul Neg ReduceMin Round Sigmoid Softmax
"""
"""Abs, LessOrEqual and ReduceMin separate finite numbers from others, Exp decodes boxes, Round is
for masks of whole numbers, Neg for the uncertainty of a mask; the others are layers of the heads.
"""
_BODIES = """
CastLike GatherND GreaterOrEqual NonMaxSuppression Pow Range ReduceSum RoiAlign ScatterND Shape Sqrt
"""
"""In the bodies of the RoIAligns and PointRendNMS, so inlined in a native graph; Shape also
where the number of RoIs is open."""

ALLOWED_OPS: Final = frozenset(" ".join((_NETWORKS, _POINTS, _BOXES, _BODIES)).split())
QUANTIZING_OPS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""In an INT8 graph besides; never in a body."""

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Ops of layers with weights; a MatMul may also be one of two activations."""

FIXED_ATTRIBUTES: Final[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
    "GridSample": {"mode": ("bilinear",), "padding_mode": ("zeros",), "align_corners": (0,)},
    "ScatterElements": {"reduction": ("none",)},
    "ScatterND": {"reduction": ("none",)},
    "Resize": {
        "mode": ("nearest", "linear"),
        "coordinate_transformation_mode": ("half_pixel", "pytorch_half_pixel", "asymmetric"),
        "antialias": (0,),
    },
    "RoiAlign": {
        "coordinate_transformation_mode": ("half_pixel",),
        "mode": ("avg",),
        "sampling_ratio": tuple(range(MAX_SAMPLING + 1)),
    },
    "NonMaxSuppression": {"center_point_box": (0,)},
    "TopK": {"largest": (1,), "sorted": (1,)},
}
"""Values an attribute may have."""

_DEFAULTS: Final[Mapping[str, object]] = {
    "padding_mode": "zeros",
    "align_corners": 0,
    "reduction": "none",
    "antialias": 0,
    "coordinate_transformation_mode": "half_pixel",
    "largest": 1,
    "sorted": 1,
    "sampling_ratio": 0,
    "center_point_box": 0,
}
_DEFAULT_MODES: Final[Mapping[str, str]] = {
    "GridSample": "bilinear",
    "Resize": "nearest",
    "RoiAlign": "avg",
}


def default_of(op: str, attribute: str) -> object:
    """Return the value of an attribute that a node of that op does not give."""
    return _DEFAULT_MODES[op] if attribute == "mode" else _DEFAULTS[attribute]
