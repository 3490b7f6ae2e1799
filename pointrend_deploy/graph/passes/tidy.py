"""Strip a graph of everything that varies between runs, and sort what has no order."""

from __future__ import annotations

from typing import Final

import onnx

IR_VERSION: Final = 10
"""The IR version of ONNX 1.16 (2024)."""


def tidy(model: onnx.ModelProto, producer_version: str) -> onnx.ModelProto:
    """Strip what differs from machine to machine, and sort what has no order of its own.

    before: doc strings, exporter metadata (source paths, stack traces), attributes in hash order
    after:  none of them; attributes, initializers and value infos by name; bytes that repeat
    """
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name = "pointrend_deploy"
    model.producer_version = producer_version
    model.ir_version = IR_VERSION
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    _sort_nodes(graph.node)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        del function.value_info[:]
        _sort_nodes(function.node)
        function.attribute.sort()
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    graph.initializer.sort(key=lambda tensor: tensor.name)
    graph.value_info.sort(key=lambda value: value.name)
    model.opset_import.sort(key=lambda entry: entry.domain)
    return model


def _sort_nodes(nodes: object) -> None:
    for node in nodes:  # type: ignore[attr-defined]
        node.doc_string = ""
        del node.metadata_props[:]
        node.attribute.sort(key=lambda attribute: attribute.name)
        for attribute in node.attribute:
            attribute.doc_string = ""
