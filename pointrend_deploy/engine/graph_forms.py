"""The two forms of a graph a builder is given: custom nodes without bodies, or bodies in place.

A bundle keeps one ONNX file a precision, whose custom nodes carry function bodies. TensorRT 10.1 to
10.3 prefers a body to a plugin, so the plugin form has none; the native form has no custom node.
Needs onnx, not torch: engines are built on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pointrend_deploy.errors import DeployError

DOMAIN: Final = "pointrend"
TOPK_LIMIT: Final = 3840
Ops = Literal["plugin", "native"]
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Ops whose precision is the engine's precision."""


def read_graph(path: Path) -> ModelProto:
    """A graph from its file.

    Raises:
        DeployError: cut short, not ONNX, or of an opset that builders read wrongly.
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
    """A copy of the graph in the form that ``ops`` names.

    Raises:
        DeployError: the plugin form of a graph whose bodies were inlined at export.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    if ops == "native":
        inlined = onnx.inliner.inline_local_functions(copy) if copy.functions else copy
        if left := custom_nodes(inlined):
            raise DeployError(f"node {left[0].name} ({left[0].op_type}) has no function body")
        return inlined
    if not custom_nodes(copy):
        raise DeployError(
            "this bundle was exported with --ops native: there is no custom node for a plugin",
            "build with --ops native, or export again with --ops plugin",
        )
    del copy.functions[:]
    return copy


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Every node, those of If and Loop bodies too; not those of functions."""
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
    """What a parser looks a plugin up by."""

    name: str
    version: str
    namespace: str


def creators_of(model: ModelProto) -> tuple[Creator, ...]:
    """The plugin creators its custom nodes need, each once.

    Raises:
        DeployError: a node that does not say which version of which namespace.
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


def topk_sizes(model: ModelProto) -> dict[str, int]:
    """Value of k of every TopK where it is a constant, by node name.

    Raises:
        DeployError: a k beyond what any TensorRT takes.
    """
    constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
    for node in nodes_of(model):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = attribute.t
    sizes = {}
    for node in nodes_of(model):
        if node.op_type == "TopK" and node.domain in ("", "ai.onnx"):
            tensor = constants.get(node.input[1])
            if tensor is None:
                continue
            size = int(numpy_helper.to_array(tensor).reshape(-1)[0])
            if size > TOPK_LIMIT:
                raise DeployError(
                    f"node {node.name}: TopK with k = {size}; TensorRT takes {TOPK_LIMIT} at most",
                    "export with this project's ops, which select in rounds, or with --ops plugin",
                )
            sizes[node.name] = size
    return sizes


def refuse_ops(model: ModelProto, unsupported: Sequence[str], builder: str) -> None:
    """Raise DeployError for the first node whose op this builder cannot build."""
    for node in nodes_of(model):
        if node.domain in ("", "ai.onnx") and node.op_type in unsupported:
            raise DeployError(
                f"{builder} has no {node.op_type} (node {node.name})",
                "build with --ops plugin, which has its own, or with full TensorRT",
            )


def weighted_nodes(model: ModelProto) -> dict[str, str]:
    """Name -> type it computes in, of every node with weights: float32, float16 or int8.

    A node computes in int8 where its first input comes from a DequantizeLinear.

    Raises:
        DeployError: a value whose type is not recorded.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in _typed_values(model)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    makers = {output: node for node in nodes_of(model) for output in node.output}
    found = {}
    for node in nodes_of(model):
        if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
            continue
        maker = makers.get(node.input[0])
        if maker is not None and maker.op_type == "DequantizeLinear":
            found[node.name] = "int8"
            continue
        code = types.get(node.input[0]) or types.get(node.input[1]) or types.get(node.output[0])
        if code is None:
            raise DeployError(f"node {node.name}: the types of its values are not in the file")
        found[node.name] = str(helper.tensor_dtype_to_np_dtype(code))
    return found


def _typed_values(model: ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.input
    yield from model.graph.output
    yield from model.graph.value_info


def input_shapes(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Shape of every input that is not a constant; a string stands for a dynamic dimension."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
        if value.name not in constants
    }
