"""The FP16 graph of an FP32 one: every type is written in the file, none is left to a builder.

MERGED: Function bodies that take FP16 features beside FP32 coordinates.

MERGED: What an FP32 layer of an FP16 graph hands on ends at FP16's largest number, not at infinity.

    before: conv (float32) -> Cast -> float16
    after:  conv (float32) -> Clip to -65504..65504 -> Cast -> float16

A layer is kept in FP32 because its values may be large, so what it hands on is bounded. It is also
what keeps it in FP32 on an engine: TensorRT-RTX 1.7 turns Cast -> Conv -> Cast (and ConvTranspose
and MatMul between two casts) into one FP16 kernel, strongly typed or not, and stops at a Clip.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.passes.tidy import tidy
from pointrend_deploy.quantize.islands import (
    FP32_INPUTS,
    FloatType,
    cast_to,
    constant_arrays,
    node_types,
    overflows,
)
from pointrend_deploy.quantize.values import FLOATS, Values, weighted_names

_CODES: Final[dict[FloatType, int]] = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
}
_SHORT: Final[dict[FloatType, str]] = {"float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class HalfGraph:
    """An FP16 graph with FP32 islands.

    Attributes:
        model: nodes, values, inputs and outputs have the names, and inputs and outputs the types,
            of the graph it was made from; further nodes are casts, and a Clip before each cast of
            an FP32 layer's output.
        fp32_layers: layers with weights that compute in FP32, because that was asked for.
    """

    model: ModelProto
    fp32_layers: tuple[str, ...]


def to_half(model: ModelProto, keep_fp32: Collection[str] = ()) -> HalfGraph:
    """Give every node of an FP32 graph the type that islands.py says, with casts between them.

    before: conv (x: float32, w: float32) -> conv.out: float32 -> TopK
    after:  conv (x: float16, w: float16) -> conv.out: float16 -> Cast -> conv.to_fp32.out -> TopK

    A value is cast once for all its readers, where it is made. A constant is stored in the type its
    readers want; where they want both, the FP32 one is called ``<name>.fp32``. A value the graph
    gives is float32: where a layer in FP16 makes it, that layer writes ``<name>.fp16``.

    Args:
        model: an FP32 graph with ``value_info`` for every value; not changed.
        keep_fp32: names of nodes that stay in FP32 besides.

    Raises:
        DeployError: a layer has weights FP16 cannot hold, or the graph is not of FP32.
    """
    values = Values(model)
    if TensorProto.FLOAT16 in values.types.values():
        raise DeployError("the graph has float16 values: only an FP32 graph is turned into FP16")
    if len({node.name for node in model.graph.node}) != len(model.graph.node):
        raise DeployError("nodes of the graph have no names of their own", "export it again")
    types = node_types(model, keep_fp32)
    half = ModelProto()
    half.CopyFrom(model)
    _Rewriter(half, values, types).rewrite()
    for function in half.functions:
        if function.name == "PointRendSample":
            widen_sampler(function)
    layers = tuple(name for name in weighted_names(model) if types[name] == "float32")
    saturate(half, layers)
    return HalfGraph(model=tidy(half, model.producer_version), fp32_layers=layers)


@dataclass
class _Rewriter:
    """One rewriting of a graph in place; ``values`` are those of the graph before."""

    model: ModelProto
    values: Values
    types: dict[str, FloatType]
    made: dict[str, FloatType] = field(default_factory=dict)
    casts: dict[str, dict[FloatType, str]] = field(default_factory=dict)
    stored: dict[tuple[str, FloatType], str] = field(default_factory=dict)
    described: dict[str, tuple[str, FloatType]] = field(default_factory=dict)

    def rewrite(self) -> None:
        graph = self.model.graph
        self.constants = constant_arrays(self.model)
        self.outputs = {value.name for value in graph.output}
        self.taken = {*self.values.types, *self.values.makers, *(n.name for n in graph.node)}
        self.made = {value.name: "float32" for value in graph.input if self._is_float(value.name)}
        nodes = [node for node in graph.node if node.output[0] not in self.constants]
        for node in nodes:
            self._type_outputs(node)
        self._choose_constants(nodes)
        for node in nodes:
            for index, name in enumerate(node.input):
                wanted = self._wanted(node, index)
                if wanted is not None:
                    node.input[index] = self._in_type(name, wanted)
        ordered = self._in_order(list(graph.node), [value.name for value in graph.input])
        self._store_constants()
        self._describe_values()
        del graph.node[:]
        graph.node.extend(ordered)

    def _is_float(self, name: str) -> bool:
        return self.values.is_float(name)

    def _type_outputs(self, node: NodeProto) -> None:
        kind = self.types.get(node.name)
        for name in node.output:
            if self._is_float(name) and kind is not None:
                self.made[name] = kind
        if node.op_type == "Cast" and kind is not None and cast_to(node) in FLOATS:
            next(a for a in node.attribute if a.name == "to").i = _CODES[kind]

    def _wanted(self, node: NodeProto, index: int) -> FloatType | None:
        """Type of a float input; None where it is not one, or any type does."""
        kind = self.types.get(node.name)
        if kind is None or not self._is_float(node.input[index]):
            return None
        if index in FP32_INPUTS.get(node.op_type, ()):
            return "float32"
        return None if node.op_type in ("Cast", "CastLike") and index == 0 else kind

    def _choose_constants(self, nodes: list[NodeProto]) -> None:
        """Decide under which name each constant is stored in which type."""
        wanted: dict[str, dict[FloatType, NodeProto]] = {}
        for node in nodes:
            for index, name in enumerate(node.input):
                if name in self.constants:
                    kind = self._wanted(node, index) or "float32"
                    wanted.setdefault(name, {}).setdefault(kind, node)
        for name, kinds in wanted.items():
            if "float16" in kinds and overflows(self.constants[name]):
                raise self._too_large(name, kinds["float16"])
            for kind in kinds:
                both = len(kinds) == 2 and kind == "float32"
                self.stored[name, kind] = self._new_name(f"{name}.fp32") if both else name

    def _too_large(self, name: str, reader: NodeProto) -> DeployError:
        layer = reader
        while not self.values.has_weights(layer) and layer.output[0] in self.values.constants:
            layer = self.values.readers[layer.output[0]][0][0]
        largest = float(np.abs(self.constants[name]).max())
        return DeployError(
            f"layer {layer.name}: {name} reaches {largest:g}; FP16 ends at 65504",
            f"leave it in FP32: --keep-fp32 {layer.name}",
        )

    def _in_type(self, name: str, kind: FloatType) -> str:
        """Name of a value in a type: its own, a stored constant's or a cast's."""
        if name in self.constants:
            return self.stored[name, kind]
        if self.made[name] == kind:
            return self._own(name)
        if name in self.outputs and kind == "float32":
            return name
        known = self.casts.setdefault(name, {})
        if kind not in known:
            known[kind] = self._new_name(f"{name.removesuffix('.out')}.to_{_SHORT[kind]}")
        return f"{known[kind]}.out"

    def _own(self, name: str) -> str:
        """Name under which the node that makes a value writes it."""
        half_output = name in self.outputs and self.made.get(name) == "float16"
        return f"{name}.fp16" if half_output else name

    def _new_name(self, name: str) -> str:
        if name in self.taken:
            raise DeployError(f"the graph already has the name {name}")
        self.taken.add(name)
        return name

    def _in_order(self, nodes: list[NodeProto], inputs: list[str]) -> list[NodeProto]:
        """The nodes, each followed by the casts of what it makes; constants in their types."""
        ordered = [cast for name in inputs for cast in self._casts_of(name)]
        for node in nodes:
            if node.output[0] in self.constants:
                ordered += self._constants_of(node)
                continue
            made = list(node.output)
            node.output[:] = [self._own(name) for name in made]
            ordered.append(node)
            ordered += [cast for name in made for cast in self._casts_of(name)]
        return ordered

    def _casts_of(self, name: str) -> list[NodeProto]:
        own = self._own(name)
        found = []
        if own != name:
            found.append(_cast(own, name, f"{name}.to_fp32", "float32"))
        for kind, node in sorted(self.casts.get(name, {}).items()):
            found.append(_cast(own, f"{node}.out", node, kind))
        return found

    def _constants_of(self, node: NodeProto) -> list[NodeProto]:
        """A Constant node in the types it is read in."""
        name, found = node.output[0], []
        for kind in _CODES:
            if (stored := self.stored.pop((name, kind), None)) is not None:
                tensor = _tensor(self.constants[name], kind, stored)
                suffix = stored.removeprefix(name)
                found.append(helper.make_node("Constant", [], [stored], node.name + suffix))
                found[-1].attribute.append(helper.make_attribute("value", tensor))
                self.described[stored] = (name, kind)
        return found

    def _store_constants(self) -> None:
        """Initializers in the types they are read in."""
        graph = self.model.graph
        others = [t for t in graph.initializer if t.name not in self.constants]
        tensors = [
            _tensor(self.constants[name], kind, stored)
            for (name, kind), stored in self.stored.items()
        ]
        del graph.initializer[:]
        graph.initializer.extend([*others, *tensors])

    def _describe_values(self) -> None:
        """Correct the types in ``value_info``, and add the casts' values and constants'."""
        graph = self.model.graph
        declared = {v.name: v for v in [*graph.input, *graph.value_info, *graph.output]}
        infos = {v.name: v for v in graph.value_info if v.name not in self.constants}
        for name, kind in self.made.items():
            if name in infos:
                infos[name].type.tensor_type.elem_type = _CODES[kind]
        added = [
            _described(declared[name], f"{node}.out", kind)
            for name, casts in self.casts.items()
            for kind, node in casts.items()
        ]
        added += [
            _described(declared[name], f"{name}.fp16", "float16")
            for name in sorted(self.outputs)
            if self._own(name) != name
        ]
        added += [
            _described(declared[name], stored, kind)
            for stored, (name, kind) in self.described.items()
            if name in declared
        ]
        described = [*infos.values(), *added]
        del graph.value_info[:]
        graph.value_info.extend(described)


def _cast(source: str, target: str, name: str, kind: FloatType) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name, to=_CODES[kind])


def _tensor(array: npt.NDArray[np.float32], kind: FloatType, name: str) -> TensorProto:
    with np.errstate(under="ignore"):  # a weight too small for FP16 counts as nothing
        stored = array.astype(kind)
    return numpy_helper.from_array(np.ascontiguousarray(stored).reshape(array.shape), name)


def _described(value: onnx.ValueInfoProto, name: str, kind: FloatType) -> onnx.ValueInfoProto:
    described = onnx.ValueInfoProto()
    described.CopyFrom(value)
    described.name = name
    described.type.tensor_type.elem_type = _CODES[kind]
    return described


def widen_sampler(function: FunctionProto) -> None:
    """Let a body of PointRendSample sample in FP32 and give the features' type; in place.

    before: GridSample(features, grid) -> ... -> result
    after:  GridSample(Cast(features, float32), grid) -> ... -> CastLike(..., features) -> result

    GridSample wants features and grid of one type, and the grid of FP16 would be up to a pixel
    wrong. The body of PointRendRoIAlign is of this form from the start.
    """
    features, (result,) = function.input[0], function.output
    nodes: list[NodeProto] = []
    for node in function.node:
        if node.op_type == "GridSample" and node.input[0] == features:
            to = TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [features], ["features_fp32"], to=to))
            node.input[0] = "features_fp32"
        node.output[:] = ["sampled_fp32" if name == result else name for name in node.output]
        nodes.append(node)
    nodes.append(helper.make_node("CastLike", ["sampled_fp32", features], [result]))
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del function.node[:]
    function.node.extend(copies)


_BOUNDS: Final = {
    "fp16.least": np.array(np.finfo(np.float16).min, np.float32),
    "fp16.largest": np.array(np.finfo(np.float16).max, np.float32),
}


def saturate(model: ModelProto, layers: Collection[str]) -> None:
    """Put a Clip before every cast to FP16 of what these layers write, in place.

    Args:
        model: with ``value_info`` for every value.
        layers: names of nodes that compute in FP32.
    """
    graph = model.graph
    written = {name for node in graph.node if node.name in layers for name in node.output}
    declared = {v.name: v for v in [*graph.value_info, *graph.output]}
    nodes = []
    for node in graph.node:
        bounded = node.op_type == "Cast" and node.input[0] in written
        if bounded and cast_to(node) == TensorProto.FLOAT16:
            clip = f"{node.input[0].removesuffix('.out')}.bounded"
            info = onnx.ValueInfoProto()
            info.CopyFrom(declared[node.input[0]])
            info.name = f"{clip}.out"
            graph.value_info.append(info)
            nodes.append(helper.make_node("Clip", [node.input[0], *_BOUNDS], [info.name], clip))
            node.input[0] = info.name
        nodes.append(node)
    if len(nodes) > len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in _BOUNDS.items())
