"""Checks on a finished FP16 or INT8 graph.

From outside it must look like the FP32 graph it was made from: :func:`expected_like`. Inside,
everything that decides must still be FP32: :func:`check_islands`.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.contract import FP32_TYPES, Expected, spec_of
from pointrend_deploy.graph.ops import DOMAIN
from pointrend_deploy.quantize.islands import (
    GROUP_NORM,
    PLACES,
    READS_AS_MADE,
    SAMPLERS,
    behind_decisions,
    cast_to,
    decided,
    decisions,
    from_decided_alone,
    stops,
)
from pointrend_deploy.quantize.values import FLOATS, Values

FP16_TYPES: Final = FP32_TYPES | {"float16"}
"""Types that values of an FP16 graph may have."""
INT8_TYPES: Final = FP16_TYPES | {"int8"}
"""Types that values of an INT8 graph may have."""


def expected_like(model: onnx.ModelProto, types: frozenset[str], opset: int = 18) -> Expected:
    """Return the contract of a graph of another precision, for :func:`check_contract`.

    Args:
        model: the FP32 graph it is made from; inputs and outputs are to be the same.
        types: dtypes that values of the new graph may have.
        opset: opset of the new graph. QuantizeLinear takes FP16 from opset 19 on.
    """
    return Expected(
        inputs={value.name: spec_of(value) for value in model.graph.input},
        outputs={value.name: spec_of(value) for value in model.graph.output},
        opset=opset,
        ops="plugin" if any(node.domain == DOMAIN for node in model.graph.node) else "native",
        types=types,
    )


def check_islands(model: ModelProto) -> None:
    """Check that everything that decides is FP32 in a finished FP16 or INT8 graph.

    - Every input that decides (a score of TopK, the points of a sampler) is float32. So is every
      value between it and the layer or sampler before it, apart from the one Cast at that layer's
      output. None of these values was rounded to FP16 and back, or quantised.
    - Nothing that is computed from coordinates alone is FP16.
    - No sampler reads features from a DequantizeLinear.
    - Group norms compute in FP32.

    Args:
        model: a graph with ``value_info`` for every value; not changed.

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
        elif node.op_type == GROUP_NORM and values.types.get(node.input[0]) != TensorProto.FLOAT:
            raise DeployError(
                f"node {node.name} (a group norm) must compute in FP32, but {node.input[0]} is not "
                "float32",
                "make the graph again with pointrend-deploy quantize",
            )
    _check_coordinates(model, values)


def _check_decision(values: Values, decider: NodeProto, start: str, sound: set[str]) -> None:
    pending = [(start, decider)]
    while pending:
        value, reader = pending.pop()
        if value in sound:
            continue
        if reader.op_type in READS_AS_MADE and values.types.get(value) == TensorProto.FLOAT16:
            _check_made_by_layer(values, decider, value)
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
            _check_made_by_layer(values, decider, maker.input[0])
            continue
        pending += [(name, maker) for name in maker.input if values.is_number(name)]


def _check_made_by_layer(values: Values, decider: NodeProto, value: str) -> None:
    """Check that a float16 value was rounded once, by the layer with weights that made it."""
    maker = values.makers.get(value)
    if maker is None or not stops(values, maker):
        raise _broken(decider, f"{value} was rounded to float16 on the way")


def _check_features(values: Values, node: NodeProto) -> None:
    for index, name in enumerate(node.input):
        maker = values.makers.get(name)
        while maker is not None and maker.op_type == "Cast" and cast_to(maker) in FLOATS:
            maker = values.makers.get(maker.input[0])
        quantised = maker is not None and maker.op_type == "DequantizeLinear"
        if quantised and index not in PLACES[node.op_type]:
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
        f"node {node.name} ({node.op_type}) must select or sample in FP32, but {what}",
        "make the graph again with pointrend-deploy quantize",
    )
