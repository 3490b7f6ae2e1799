"""The two forms of a graph a builder is given: custom nodes without bodies, or bodies in place.

A bundle keeps one ONNX file a precision, whose custom nodes carry function bodies. TensorRT 10.1 to
10.3 prefers a body to a plugin, so the plugin form has none; the native form has no custom node.
Needs onnx, not torch: engines are built on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto

from pointrend_deploy.errors import DeployError

DOMAIN: Final = "pointrend"
Ops = Literal["plugin", "native"]


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
        DeployError: the plugin form of a graph without custom nodes: their bodies were inlined at
            export, or the model needs none.
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
            "the graph has no custom node for a plugin: its model has no point head, or its bundle "
            "was exported with --ops native",
            "build with --ops native; a model with a point head exports with --ops plugin too",
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
