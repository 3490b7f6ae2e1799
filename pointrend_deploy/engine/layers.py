"""The layers an engine really has: their types after fusion, and the precision that follows.

Two sources give the same table: TensorRT-RTX's verbose message that begins ``Layers:``, which needs
no GPU, and the JSON of full TensorRT's engine inspector.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pointrend_deploy.errors import DeployError

LAYERS_BEGIN: Final = "Layers:"
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[.*?\], )?Outputs: \[(?P<outputs>.*?)\], Tactic.*?Metadata: (?P<metadata>.*)"
)
_TYPES: Final = {
    "bfloat16": ("BFloat16", "BF16"),
    "float16": ("Half", "FP16"),
    "float32": ("Float", "FP32"),
    "int8": ("Int8", "INT8"),
    "int32": ("Int32", "INT32"),
    "int64": ("Int64", "INT64"),
    "uint8": ("UInt8", "UINT8"),
    "bool": ("Bool", "BOOL"),
}


class Layer(msgspec.Struct, frozen=True):
    """A layer of the engine.

    Attributes:
        name: the builder's.
        kind: the builder's word for what it is: correlation, kgen, custom_layer (a plugin) and the
            like.
        inputs: type of each input.
        outputs: type of each output.
        nodes: the ONNX nodes that were fused into it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


class LayerTable(msgspec.Struct, frozen=True):
    """What ``layers.json`` holds for one engine.

    Attributes:
        kinds: number of layers by kind.
        weighted: type in which each node with weights computes; ``?`` where no layer names it.
        layers: all of them, in order.
    """

    kinds: dict[str, int]
    weighted: dict[str, str]
    layers: tuple[Layer, ...]


def read_layers(text: str) -> tuple[Layer, ...]:
    """Layers from either source.

    Raises:
        DeployError: neither form, or no layer in it.
    """
    layers = _from_log(text) if text.startswith(LAYERS_BEGIN) else _from_inspector(text)
    if not layers:
        raise DeployError(
            "the builder's table of layers cannot be read", "this version of it is not known"
        )
    return layers


def _from_log(text: str) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for line in text.splitlines()[1:]:
        if not line.startswith("Name: "):
            if layers and not line.strip():
                break
            continue
        match = _LINE.match(line)
        if match is None:
            raise DeployError(f"the builder's table of layers has a line not known: {line[:200]}")
        layers.append(
            Layer(
                match["name"],
                match["kind"],
                _types(match["inputs"]),
                _types(match["outputs"]),
                tuple(_NODE.findall(match["metadata"])),
            )
        )
    return tuple(layers)


def _types(tensors: str) -> tuple[str, ...]:
    return tuple(map(_type, re.findall(r"Datatype: (\w+)", tensors)))


def _from_inspector(text: str) -> tuple[Layer, ...]:
    try:
        table = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise DeployError(f"the engine inspector's answer is not JSON: {error}") from error
    found = table.get("Layers", []) if isinstance(table, dict) else []
    return tuple(_layer_of(entry) for entry in found if isinstance(entry, dict))


def _layer_of(entry: Mapping[str, Any]) -> Layer:
    def types(key: str) -> tuple[str, ...]:
        tensors = [t for t in entry.get(key) or () if isinstance(t, dict)]
        return tuple(_type(t.get("Datatype") or t.get("Format/Datatype", "?")) for t in tensors)

    return Layer(
        str(entry.get("Name", "?")),
        str(entry.get("LayerType", "?")),
        types("Inputs"),
        types("Outputs"),
        tuple(_NODE.findall(str(entry.get("Metadata", "")))),
    )


def _type(words: str) -> str:
    """``Half``, or ``Row major linear FP16 format`` -> float16; a word not known stays."""
    for name, spellings in _TYPES.items():
        if any(re.search(rf"\b{word}\b", words) for word in spellings):
            return name
    return words


def table_of(layers: tuple[Layer, ...], weighted: Mapping[str, str]) -> LayerTable:
    """The table, and for each node with weights the type it computes in.

    Args:
        layers: of the engine.
        weighted: type each such node must compute in, by name; see graph_forms.weighted_nodes.
    """
    inputs: dict[str, set[str]] = {}
    for layer in layers:
        for node in layer.nodes:
            inputs.setdefault(node, set()).update(layer.inputs)
    computed = {}
    for node, wanted in weighted.items():
        seen = inputs.get(node, set())
        computed[node] = wanted if wanted in seen else "/".join(sorted(seen)) or "?"
    kinds = dict(Counter(layer.kind for layer in layers))
    return LayerTable(kinds, computed, layers)


def check_precision(table: LayerTable, weighted: Mapping[str, str], precision: str) -> None:
    """The engine computes as was asked for.

    Args:
        table: of the engine.
        weighted: type each node with weights must compute in.
        precision: what was asked for: fp32, fp16 or int8.

    Raises:
        DeployError: nodes that compute in another type, or none that computes in the one asked for.
    """
    name = {"fp32": "float32", "fp16": "float16", "int8": "int8"}[precision]
    if name not in weighted.values():
        raise DeployError(
            f"no node of the {precision} graph computes in {name}", "quantize the bundle again"
        )
    seen = {node: found for node, found in table.weighted.items() if found != "?"}
    if not seen:
        raise DeployError("the builder's layers name none of the graph's nodes with weights")
    wrong = [node for node, found in seen.items() if found != weighted[node]]
    if wrong:
        raise DeployError(
            f"{len(wrong)} of {len(seen)} nodes with weights do not compute as asked: {wrong[0]} "
            f"in {seen[wrong[0]]}, not {weighted[wrong[0]]}",
            "this engine is not what it would be called; nothing was written",
        )
