"""A bundle's graph before a builder sees it: its form, and the facts its engine is checked by.

A bundle keeps one ONNX file a precision, whose custom nodes carry function bodies. A builder gets
one of two forms: the plugin form has custom nodes without bodies (TensorRT 10.1 to 10.3 prefers a
body to a plugin), the native form has the bodies in place of the nodes. The facts are sizes, types
and ops. Needs onnx, not torch: engines are built on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.bundle.forms import Ops
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.allowed_ops import WEIGHTED
from pointrend_deploy.graph.options import TOPK_LIMIT

DOMAIN: Final = "pointrend"
_MOVES: Final = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_EITHER = ("float32", "float16")
_TAKES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "PointRendSample": (_EITHER, ("float32",)),
    "PointRendSampleCells": (_EITHER, _EITHER, ("int64",)),
    "PointRendSampleRoIs": (_EITHER, _EITHER, _EITHER, ("float32",), ("float32",)),
    "PointRendUncertain": (("float32",),),
    "PointRendRoIAlign": (("float32",), _EITHER, _EITHER, _EITHER, _EITHER),
    "PointRendRoIAlignFixed": (("float32",), _EITHER, _EITHER, _EITHER, _EITHER),
    "PointRendNMS": (("float32",), ("float32",)),
    "PointRendUpsampleUncertainty": (_EITHER,),
    "PointRendUpsampleLabels": (_EITHER,),
    "PointRendRefineLogits": (_EITHER, ("int64",), _EITHER),
    "PointRendRefineLabels": (("int32",), ("int64",), _EITHER),
}
"""Types of the inputs of each plugin; see plugins/README.md."""


def read_graph(path: Path) -> ModelProto:
    """Read a graph from its file and check that it is whole.

    Raises:
        DeployError: the file is cut short, not ONNX, or of an opset that builders read wrongly.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise DeployError(
            f"{path} is not a whole ONNX file: {(str(error).strip() or 'damaged').splitlines()[0]}",
            "copy or export the bundle again",
        ) from error
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset not in (18, 19):
        raise DeployError(
            f"{path} is of opset {opset}, not 18 or 19",
            "from opset 20 on TensorRT samples the nearest cell without saying so; export at 18",
        )
    return model


def in_form(model: ModelProto, ops: Ops) -> ModelProto:
    """Copy the graph in the form that ``ops`` names.

    Raises:
        DeployError: the plugin form of a graph without custom nodes: their bodies were inlined at
            export.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    if ops == "native":
        inlined = onnx.inliner.inline_local_functions(copy)
        inlined = onnx.shape_inference.infer_shapes(inlined)  # types of the bodies' values
        if left := custom_nodes(inlined):
            raise DeployError(f"node {left[0].name} ({left[0].op_type}) has no function body")
        return inlined
    if not custom_nodes(copy):
        raise DeployError(
            "the graph has no custom node for a plugin: its bundle was exported with --ops native",
            "build with --ops native, or export the bundle again with --ops plugin",
        )
    del copy.functions[:]
    return copy


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Yield every node, those inside If and Loop too, but not those of functions."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            yield node
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def custom_nodes(model: ModelProto) -> list[NodeProto]:
    """Nodes of domain ``pointrend``."""
    return [node for node in nodes_of(model) if node.domain == DOMAIN]


@dataclass(frozen=True)
class Creator:
    """The three strings by which a parser looks a plugin up."""

    name: str
    version: str
    namespace: str


def creators_of(model: ModelProto) -> tuple[Creator, ...]:
    """Return the plugin creators that the custom nodes need, each once.

    Raises:
        DeployError: a node lacks ``plugin_version`` or ``plugin_namespace``.
    """
    found = []
    for node in custom_nodes(model):
        values = {a.name: a.s.decode() for a in node.attribute if a.type == a.STRING}
        if not {"plugin_version", "plugin_namespace"} <= set(values):
            raise DeployError(
                f"node {node.name} ({node.op_type}) lacks plugin_version or plugin_namespace",
                "export the bundle again",
            )
        found.append(Creator(node.op_type, values["plugin_version"], values["plugin_namespace"]))
    return tuple(dict.fromkeys(found))


def check_plugin_inputs(model: ModelProto) -> None:
    """Check that every custom node gets the types its plugin takes; builders do not name the node.

    Raises:
        DeployError: naming the node and the input of another type, or of none that is recorded.
    """
    types = _types(model)
    for node in custom_nodes(model):
        for name, takes in zip(node.input, _TAKES.get(node.op_type, ()), strict=False):
            found = types.get(name, "of a type that the file does not give")
            if found not in takes:
                raise DeployError(
                    f"node {node.name}: {node.op_type} takes {' or '.join(takes)}, and {name} is "
                    f"{found}",
                    "export the bundle again",
                )


def refuse_ops(model: ModelProto, unsupported: Sequence[str], builder: str) -> None:
    """Raise DeployError for the first node whose op this builder cannot build."""
    for node in nodes_of(model):
        if node.domain in ("", "ai.onnx") and node.op_type in unsupported:
            raise DeployError(
                f"{builder} has no {node.op_type} (node {node.name})",
                "build with --ops plugin, which has its own, or with full TensorRT",
            )


def topk_sizes(model: ModelProto) -> dict[str, int]:
    """Return the k of every TopK where it is a constant, by node name.

    Raises:
        DeployError: a k beyond what any TensorRT takes.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in nodes_of(model):
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            constants[node.output[0]] = (
                numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value)
            )
    sizes = {}
    for node in nodes_of(model):
        if node.op_type == "TopK" and node.domain in ("", "ai.onnx"):
            if node.input[1] not in constants:
                continue
            size = int(constants[node.input[1]].reshape(-1)[0])
            if size > TOPK_LIMIT:
                raise DeployError(
                    f"node {node.name}: TopK with k = {size}; TensorRT takes {TOPK_LIMIT} at most",
                    "export with this project's ops, which select in rounds, or with --ops plugin",
                )
            sizes[node.name] = size
    return sizes


def weighted_nodes(model: ModelProto) -> dict[str, str]:
    """Return the type that every product computes in, by node name: float32, float16 or int8.

    Products are the nodes with weights and every MatMul of two activations. A node computes in int8
    where both of its operands come from a DequantizeLinear, with nothing but moves between.

    Raises:
        DeployError: only one operand does, the operands are of two types, or a type is not
            recorded.
    """
    types = _types(model)
    makers = {output: node for node in nodes_of(model) for output in node.output}
    found = {}
    for node in nodes_of(model):
        if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
            continue
        quantized = [_dequantized(name, makers) for name in node.input[:2]]
        known = {types[name] for name in node.input[:2] if name in types}
        if any(quantized) and not all(quantized):
            which = "activation" if quantized[0] else "weight"
            raise DeployError(
                f"node {node.name}: its {which} alone is dequantised; it would compute in float",
                "quantize the bundle again",
            )
        if len(known) > 1:
            raise DeployError(f"node {node.name}: its operands are {' and '.join(sorted(known))}")
        if not known and not any(quantized):
            raise DeployError(f"node {node.name}: the types of its values are not in the file")
        found[node.name] = "int8" if any(quantized) else known.pop()
    return found


def _dequantized(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a value comes from a DequantizeLinear, through moves alone."""
    maker = makers.get(name)
    while maker is not None and maker.op_type in _MOVES:
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def input_shapes(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Shape of every input that is not a constant; a string stands for a dynamic dimension."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return {value.name: _shape(value) for value in model.graph.input if value.name not in constants}


def element_counts(model: ModelProto, sizes: Mapping[str, int]) -> dict[str, int]:
    """Number of elements of every value whose shape follows from the dynamic dimensions.

    Args:
        model: values have shapes such as (R, 784, 2) or (1, 784*R, 2), as the exporter writes them.
        sizes: value of each dynamic dimension, by its name.
    """
    counts = {}
    for value in _typed_values(model):
        factors = [factor for size in _shape(value) for factor in str(size).split("*")]
        known = [sizes.get(factor, int(factor) if factor.isdigit() else -1) for factor in factors]
        if all(size >= 0 for size in known):
            counts[value.name] = prod(known)
    return counts


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    )


def _types(model: ModelProto) -> dict[str, str]:
    codes = {value.name: value.type.tensor_type.elem_type for value in _typed_values(model)}
    codes |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    known = set(helper.get_all_tensor_dtypes())
    return {
        name: str(helper.tensor_dtype_to_np_dtype(code))
        for name, code in codes.items()
        if code in known
    }


def _typed_values(model: ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.input
    yield from model.graph.output
    yield from model.graph.value_info
