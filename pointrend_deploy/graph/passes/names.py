"""Name nodes and values by the module they come from, in the words of the checkpoint."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import onnx
import onnx_graphsurgeon as gs

from pointrend_deploy.graph.allowed_ops import WEIGHTED

_TURN = re.compile(r"^(?:subdivision\.(?=step)|.*proposal_generator\.(?=p\d))(step\d+|p\d+)$")
"""A wrapper's module that calls the same modules as others like it: a step, a pyramid level."""
_TURN_END = re.compile(r"\.(step\d+|p\d+)$")
_SCOPES = "pkg.torch.onnx.name_scopes"


def name_by_module(model: onnx.ModelProto, modules: Mapping[str, str]) -> onnx.ModelProto:
    """Rename every node, value and initializer; the graph's inputs and outputs keep their names.

    before: node_Conv_934 (image, bottom_up.stem.0.weight, ..._bias) -> getitem
    after:  backbone.bottom_up.stem.conv1 (image, ....conv1.weight, ....conv1.bias) -> ....conv1.out

    A module's convolution has the module's own name; its other nodes add their op
    (``....p2.0.norm.reshape``), a repeated one a number. A module that every step calls ends in
    the step (``sem_seg_head.point_head.fc1.step0``), one that every pyramid level calls in the
    level (``proposal_generator.rpn_head.conv.p2``). The exporter's metadata, which includes stack
    traces with paths of the exporting machine, is removed.

    Args:
        model: as exported by torch's dynamo exporter.
        modules: path of a module in the traced wrapper -> path in the reference model, for those
            that have one.
    """
    paths = _node_paths(model, modules)
    graph = gs.import_onnx(model)
    fixed = {id(tensor) for tensor in [*graph.inputs, *graph.outputs]}
    taken: dict[str, int] = {}
    for node in graph.nodes:
        node.name = _unique(_node_name(node, paths[node.name], taken), taken)
        for index, tensor in enumerate(node.outputs):
            if id(tensor) not in fixed:
                tensor.name = f"{node.name}.out" + (str(index) if len(node.outputs) > 1 else "")
    _name_constants(graph, modules)
    graph.name, graph.doc_string = "pointrend_deploy", ""
    named: onnx.ModelProto = gs.export_onnx(graph)
    named.functions.extend(
        f for f in model.functions if f.name not in {g.name for g in named.functions}
    )
    return named


def _node_paths(model: onnx.ModelProto, modules: Mapping[str, str]) -> dict[str, str]:
    """Node name -> path of its module; a node the optimizer made takes its input's."""
    paths: dict[str, str] = {}
    by_output: dict[str, str] = {}
    for node in model.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
        if scopes:
            path = _module_path(ast.literal_eval(scopes[0])[:-1], modules)
            path = _owner_of_weight(node, path, modules)
        else:
            path = next((by_output[name] for name in node.input if name in by_output), "graph")
        paths[node.name] = path
        by_output.update(dict.fromkeys(node.output, path))
    return paths


def _module_path(scopes: list[str], modules: Mapping[str, str]) -> str:
    turn = next((found[1] for found in map(_TURN.match, scopes) if found), "")
    inner = scopes[-1] if scopes else ""
    if not inner:
        return "graph"
    if inner in modules:
        return modules[inner] + (f".{turn}" if turn else "")
    return turn or inner


def _owner_of_weight(node: onnx.NodeProto, path: str, modules: Mapping[str, str]) -> str:
    """The convolution's own path where a norm was folded into it and lent it its scope."""
    if node.op_type not in WEIGHTED or len(node.input) < 2:
        return path
    module, _, leaf = node.input[1].rpartition(".")
    turn = _TURN_END.search(path)
    if leaf != "weight" or module not in modules:
        return path
    return modules[module] + (turn[0] if turn else "")


def _node_name(node: gs.Node, path: str, taken: Mapping[str, int]) -> str:
    if node.op in WEIGHTED and path not in taken:
        return path
    return f"{path}.{node.op.lower()}"


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}_{count}" if count else name


def _name_constants(graph: gs.Graph, modules: Mapping[str, str]) -> None:
    """Parameters by their module's path; other constants by the first node that reads them."""
    named = {id(tensor) for tensor in graph.outputs}  # they keep their names
    taken: dict[str, int] = {}
    for node in graph.nodes:
        for index, tensor in enumerate(node.inputs):
            if not isinstance(tensor, gs.Constant) or id(tensor) in named:
                continue
            named.add(id(tensor))
            module, _, leaf = tensor.name.rpartition(".")
            if module in modules and leaf in ("weight", "bias"):
                name = f"{modules[module]}.{leaf}"
            elif node.op in WEIGHTED and index in (1, 2):
                owner = _TURN_END.sub("", node.name)
                name = f"{owner}.{('weight', 'bias')[index - 1]}"
            elif module in modules:
                name = f"{modules[module]}.{leaf}"
            else:
                name = f"{node.name}.in{index}"
            tensor.name = _unique(name, taken)
