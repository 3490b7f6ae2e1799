"""Give every value of a graph a type in the file, with casts where two types meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.islands import (
    FP32_INPUTS,
    TAKES_EITHER,
    FloatType,
    cast_to,
    constant_arrays,
    overflows,
)
from pointrend_deploy.quantize.values import FLOATS, Values
from pointrend_deploy.wording import count_of

_CODES: Final[dict[FloatType, int]] = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
}
_SHORT: Final[dict[FloatType, str]] = {"float16": "fp16", "float32": "fp32"}


class WeightRangeError(DeployError):
    """Weights of some layers are to be FP16 and are out of its range.

    Args:
        found: by name of the layer, the name of a constant and its largest absolute value.
    """

    def __init__(self, found: Mapping[str, tuple[str, float]]) -> None:
        (layer, (name, largest)), *others = found.items()
        more = f"; so do weights of {count_of(len(others), 'other layer')}" if others else ""
        super().__init__(
            f"layer {layer}: {name} reaches {largest:g}; FP16 ends at 65504{more}",
            " ".join(("keep in FP32:", *(f"--keep-fp32 {name}" for name in found))),
        )
        self.layers = tuple(found)


def retyped(model: ModelProto, types: Mapping[str, FloatType]) -> ModelProto:
    """Copy an FP32 graph with each node computing in a given type, and casts where types meet.

    A value is cast once for all its readers, where it is made. A constant is stored in the type its
    readers take; where some take FP16 and some FP32, the FP32 copy is named ``<name>.fp32``. An
    output of the graph stays float32: where a node in FP16 makes it, that node writes
    ``<name>.fp16`` and a cast writes ``<name>``.

    Args:
        model: an FP32 graph with ``value_info`` for every value; not changed.
        types: by name, the type of every node that computes with floats.

    Raises:
        WeightRangeError: constants that are to be FP16 are out of its range.
        DeployError: a new name is taken.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    _Rewriter(copy, Values(model), types).rewrite()
    return copy


@dataclass
class _Rewriter:
    """Rewrites one graph in place.

    Attributes:
        model: the graph.
        values: its values as they were before.
        types: by node, the type to compute in.
        made: by value, the type it now has where it is made.
        casts: by value and type, the name of the Cast node to that type.
        stored: by constant and type, the name it is stored under; Constant nodes take theirs out.
        described: by new name of a Constant's output, the constant and its type.
    """

    model: ModelProto
    values: Values
    types: Mapping[str, FloatType]
    made: dict[str, FloatType] = field(default_factory=dict)
    casts: dict[str, dict[FloatType, str]] = field(default_factory=dict)
    stored: dict[tuple[str, FloatType], str] = field(default_factory=dict)
    described: dict[str, tuple[str, FloatType]] = field(default_factory=dict)

    def rewrite(self) -> None:
        """Rewrite the graph."""
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
        """Give a node's float outputs the node's type."""
        kind = self.types.get(node.name)
        for name in node.output:
            if self._is_float(name) and kind is not None:
                self.made[name] = kind
        if node.op_type == "Cast" and kind is not None and cast_to(node) in FLOATS:
            next(a for a in node.attribute if a.name == "to").i = _CODES[kind]

    def _wanted(self, node: NodeProto, index: int) -> FloatType | None:
        """Return the type an input must have; None if it is no float or any type will do."""
        kind = self.types.get(node.name)
        if kind is None or not self._is_float(node.input[index]):
            return None
        if index in FP32_INPUTS.get(node.op_type, ()):
            return "float32"
        return None if index in TAKES_EITHER.get(node.op_type, ()) else kind

    def _choose_constants(self, nodes: list[NodeProto]) -> None:
        """Decide in which types each constant is stored, and under which names."""
        wanted: dict[str, dict[FloatType, NodeProto]] = {}
        for node in nodes:
            for index, name in enumerate(node.input):
                if name in self.constants:
                    kind = self._wanted(node, index) or "float32"
                    wanted.setdefault(name, {}).setdefault(kind, node)
        beyond: dict[str, tuple[str, float]] = {}
        for name, kinds in wanted.items():
            if "float16" in kinds and overflows(self.constants[name]):
                layer = self._layer_of(kinds["float16"])
                beyond.setdefault(layer, (name, float(np.abs(self.constants[name]).max())))
            for kind in kinds:
                both = len(kinds) == 2 and kind == "float32"
                self.stored[name, kind] = self._new_name(f"{name}.fp32") if both else name
        if beyond:
            raise WeightRangeError(beyond)

    def _layer_of(self, layer: NodeProto) -> str:
        """Return the name of the layer that a constant's reader is or leads to."""
        while not self.values.has_weights(layer) and layer.output[0] in self.values.constants:
            layer = self.values.readers[layer.output[0]][0][0]
        return layer.name

    def _in_type(self, name: str, kind: FloatType) -> str:
        """Return the name under which a value is read in a type, adding a cast if needed."""
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
        """Return the name that the node which makes a value gives to it."""
        half_output = name in self.outputs and self.made.get(name) == "float16"
        return f"{name}.fp16" if half_output else name

    def _new_name(self, name: str) -> str:
        if name in self.taken:
            raise DeployError(f"the graph already has the name {name}")
        self.taken.add(name)
        return name

    def _in_order(self, nodes: list[NodeProto], inputs: list[str]) -> list[NodeProto]:
        """Return the nodes, each followed by the casts of its outputs; constants are retyped."""
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
        """Return a Constant node once for each type it is read in."""
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
        """Store each initializer in the types it is read in."""
        graph = self.model.graph
        others = [t for t in graph.initializer if t.name not in self.constants]
        tensors = [
            _tensor(self.constants[name], kind, stored)
            for (name, kind), stored in self.stored.items()
        ]
        del graph.initializer[:]
        graph.initializer.extend([*others, *tensors])

    def _describe_values(self) -> None:
        """Correct the types in ``value_info`` and add the values of casts and constants."""
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
