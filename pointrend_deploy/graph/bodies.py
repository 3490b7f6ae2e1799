"""Function bodies of the custom ops, in standard ops that every runtime and TensorRT's parser take.

With these in the file a runtime that has no kernel for ``pointrend`` runs the body, and a builder
that has a plugin puts it in the body's place.
"""

# mypy: disable-error-code="no-untyped-def,type-arg,operator"
from __future__ import annotations

from typing import Any

import onnx
from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.values import Opset

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.ops import DOMAIN, PLUGIN_ATTRIBUTES, SAMPLE, UNCERTAIN, VERSION
from pointrend_deploy.graph.options import TOPK_LIMIT

_domain = Opset(DOMAIN, VERSION)


@script(_domain, default_opset=op)
def _sample(features, points):
    """Bilinear, cell centres at (i + 0.5) / size, zeros outside: ONNX GridSample, opset 16."""
    doubled = op.Mul(points, op.Constant(value_float=2.0))
    centred = op.Sub(doubled, op.Constant(value_float=1.0))
    grid = op.Unsqueeze(centred, op.Constant(value_ints=[2]))
    sampled = op.GridSample(features, grid, align_corners=0, mode="bilinear", padding_mode="zeros")
    return op.Squeeze(sampled, op.Constant(value_ints=[3]))


@script(_domain, default_opset=op)
def _finite(uncertainty):
    """Raise -inf to the lowest finite number, so that -inf can mark what has been taken."""
    return op.Max(uncertainty, op.Constant(value_float=-3.4028234663852886e38))


@script(_domain, default_opset=op)
def _take(left, k):
    """One round: the k highest cells, and the map with -inf in their place."""
    values, taken = op.TopK(left, k, axis=1, largest=1, sorted=1)
    gone = op.Sub(values, op.Constant(value_float=float("inf")))
    rest = op.ScatterElements(left, taken, gone, axis=1)
    return taken, rest


@script(_domain, default_opset=op)
def _take_last(left, k):
    """The last round: nothing is left to mark."""
    _, taken = op.TopK(left, k, axis=1, largest=1, sorted=1)
    return taken


def sample_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendSample."""
    return finished(SAMPLE, _sample.to_function_proto(), opset)


def uncertain_body(k: int, opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendUncertain for one value of its attribute ``k``.

    Up to 3840 it is a TopK. Above, rounds of TopK of at most 3840, each over what the rounds
    before have not taken: the order is a stable sort's, since ONNX's TopK gives ties to the lower
    index and every round sees the remaining cells in place. The number of rounds is fixed by
    ``k``, so a graph has one value of k; steps that recompute every cell select nothing.

    Raises:
        DeployError: ``k`` below 1.
    """
    if k < 1:
        raise DeployError(f"k of {UNCERTAIN} is at least 1, not {k}")
    rounds = -(-k // TOPK_LIMIT)
    body = onnx.FunctionProto(domain=DOMAIN, name=UNCERTAIN, input=["uncertainty"])
    left = "uncertainty"
    if rounds > 1:
        (left,) = _append(body, _finite, [left], "finite")
    parts = []
    for number in range(rounds):
        share = min(TOPK_LIMIT, k - number * TOPK_LIMIT)
        share_name = f"k_{number}"
        body.node.append(onnx.helper.make_node("Constant", [], [share_name], value_ints=[share]))
        if number + 1 < rounds:
            taken, left = _append(body, _take, [left, share_name], f"round_{number}")
        else:
            (taken,) = _append(body, _take_last, [left, share_name], f"round_{number}")
        parts.append(taken)
    body.node.append(onnx.helper.make_node("Concat", parts, ["indices"], axis=1))
    body.output.append("indices")
    body.attribute.append("k")
    return finished(UNCERTAIN, body, opset)


def _append(body: onnx.FunctionProto, part: Any, inputs: list[str], prefix: str) -> list[str]:
    """Append the nodes of a script function to a body, its values named under ``prefix``."""
    proto = part.to_function_proto()
    names = dict(zip(proto.input, inputs, strict=True))

    def renamed(name: str) -> str:
        return names.get(name, f"{prefix}.{name}") if name else ""

    for node in proto.node:
        copy = body.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [renamed(name) for name in node.input]
        copy.output[:] = [renamed(name) for name in node.output]
    return [renamed(name) for name in proto.output]


def finished(name: str, body: onnx.FunctionProto, opset: int) -> onnx.FunctionProto:
    """Name a body's nodes, declare its plugin attributes, and leave nothing of this machine."""
    body.name = name
    body.doc_string = ""
    for attribute in PLUGIN_ATTRIBUTES:
        if attribute not in body.attribute:
            body.attribute.append(attribute)
    del body.opset_import[:]
    body.opset_import.append(onnx.helper.make_opsetid("", opset))
    for index, node in enumerate(body.node):
        node.name = f"{node.op_type}_{index}"
        node.doc_string = ""
        del node.metadata_props[:]
    return body
