"""The check on a finished FP16 or INT8 graph that what decides stayed in FP32.

MERGED: What a graph of another precision must be: from outside, the FP32 graph it was made from.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import FP32_TYPES, Expected, spec_of
from pointrend_deploy.graph.ops import DOMAIN
from pointrend_deploy.quantize.islands import (
    PLACES,
    SAMPLERS,
    behind_decisions,
    cast_to,
    decided,
    decisions,
    from_decided_alone,
    stops,
)
from pointrend_deploy.quantize.values import FLOATS, Values


def check_islands(model: ModelProto) -> None:
    """Check on a finished FP16 or INT8 graph that what decides is FP32.

    Every deciding input and every place a sampler reads at is float32, and so is all between it and
    the layer or sampler before it, but for the one Cast at that layer's output; nothing on the way
    was rounded to FP16 and back, or passed INT8. Nothing is computed in FP16 from coordinates
    alone, and no sampler reads features out of a DequantizeLinear.

    Args:
        model: with ``value_info`` for every value; not changed.

    Raises:
        DeployError: naming the node that decides and the value at fault.
    """
    values = Values(model)
    sound: set[str] = set()
    for node, value in decisions(values, iter(model.graph.node)):
        _check_decision(values, node, value, sound)
    for node in model.graph.node:
        if node.op_type in SAMPLERS:
            _check_features(values, node)
    _check_coordinates(model, values)


def _check_decision(values: Values, decider: NodeProto, start: str, sound: set[str]) -> None:
    pending = [start]
    while pending:
        value = pending.pop()
        if value in sound:
            continue
        sound.add(value)
        if values.types.get(value) != TensorProto.FLOAT:
            raise _broken(decider, f"{value} is not float32")
        maker = values.makers.get(value)
        if maker is None or stops(values, maker):
            continue
        if maker.op_type in ("DequantizeLinear", "QuantizeLinear"):
            raise _broken(decider, f"{value} comes out of INT8")
        if maker.op_type == "Cast" and values.types.get(maker.input[0]) == TensorProto.FLOAT16:
            source = values.makers.get(maker.input[0])
            if source is None or not stops(values, source):
                raise _broken(decider, f"{maker.input[0]} was rounded to float16 on the way")
            continue
        pending += [name for name in maker.input if values.is_number(name)]


def _check_features(values: Values, node: NodeProto) -> None:
    for index, name in enumerate(node.input):
        maker = values.makers.get(name)
        while maker is not None and maker.op_type == "Cast" and cast_to(maker) in FLOATS:
            maker = values.makers.get(maker.input[0])
        quantised = maker is not None and maker.op_type == "DequantizeLinear"
        if quantised and index != PLACES[node.op_type]:
            raise _broken(node, f"{name}, which it samples, comes out of INT8")


def _check_coordinates(model: ModelProto, values: Values) -> None:
    known = decided(model, values, behind_decisions(model, values))
    for node in model.graph.node:
        if not from_decided_alone(values, node, known):
            continue
        made = [name for name in node.output if values.is_float(name)]
        known.update(made)
        rounded = any(values.types[name] == TensorProto.FLOAT16 for name in made)
        if rounded and not (node.op_type == "Cast" and values.is_float(node.input[0])):
            raise _broken(node, f"{made[0]} is not float32")


def _broken(node: NodeProto, what: str) -> DeployError:
    return DeployError(
        f"node {node.name} ({node.op_type}) decides, or says where, in FP32, but {what}",
        "make the graph again with pointrend-deploy quantize",
    )


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
