"""What a graph of another precision must be: from outside, the FP32 graph it was made from."""

from __future__ import annotations

from typing import Final

import onnx

from pointrend_deploy.graph.contract import FP32_TYPES, Expected, spec_of
from pointrend_deploy.graph.ops import DOMAIN

FP16_TYPES: Final = FP32_TYPES | {"float16"}
"""Types of values in an FP16 graph."""
INT8_TYPES: Final = FP16_TYPES | {"int8"}
"""Types of values in an INT8 graph, which may hold Q/DQ nodes."""


def expected_like(model: onnx.ModelProto, types: frozenset[str], opset: int = 18) -> Expected:
    """The promises of a graph made from another.

    Args:
        model: the graph it is made from, whose promises were checked.
        types: dtypes its values may have.
        opset: of the new graph; QuantizeLinear takes FP16 from 19 on.
    """
    return Expected(
        inputs={value.name: spec_of(value) for value in model.graph.input},
        outputs={value.name: spec_of(value) for value in model.graph.output},
        opset=opset,
        ops="plugin" if any(node.domain == DOMAIN for node in model.graph.node) else "native",
        types=types,
    )
