"""Check that an engine computes in its graph's types, by comparing nodes with the engine's layers.

The types that count are those the product of matrices reads. A layer that only names a node, such
as the one that scales the product's output, says nothing about its precision.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.engine.layers import Layer, LayerTable, Operand
from pointrend_deploy.errors import DeployError

NAMES: Final = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_NUMBERS: Final = frozenset({"float32", "float16", "bfloat16", "int8"})
_INT8_KERNEL: Final = re.compile(r"i8i8|i8i32|imma|int8", re.IGNORECASE)
_NOTHING_WRITTEN: Final = "this engine is not what it would be called; nothing was written"
_SHOWN: Final = 3


def table_of(layers: tuple[Layer, ...], weighted: Collection[str]) -> LayerTable:
    """Build the table of layers, with the type in which each matrix product computes.

    The type is that of the activation and of the weights of every product the node is in. Where the
    builder fused the node and its neighbours into one kernel without a product, it is the type of
    the kernel's constants and inputs. ``float16/int8`` stands for products whose operands differ,
    ``?`` for a node that no layer names.

    Args:
        layers: of the engine.
        weighted: names of the nodes.
    """
    named: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes:
            named.setdefault(node, []).append(layer)
    computed = {node: _computed(named.get(node, [])) for node in weighted}
    return LayerTable(dict(Counter(layer.kind for layer in layers)), computed, layers)


def _computed(layers: list[Layer]) -> str:
    products = [layer for layer in layers if layer.product]
    if products:
        types = {kind for layer in products for kind in _of_product(layer)}
    else:
        fused = [layer for layer in layers if "fusion" in layer.kind] or layers
        types = {kind for layer in fused for kind in _of_kernel(layer)}
    return "/".join(sorted(types)) or "?"


def _of_product(layer: Layer) -> set[str]:
    """Types of the two operands that are multiplied."""
    operands = [*layer.inputs[:1], *filter(None, [layer.weights])]
    return {operand.type for operand in operands}


def _of_kernel(layer: Layer) -> set[str]:
    """Types that a kernel of several operations works on.

    Its weights say it, being cast by nothing. Its inputs may be cast within it, and one that
    spreads over an output is not multiplied but added, to a product that may have been cast. INT8
    operands are made floats again within it unless the kernel's name says otherwise.
    """
    weights = [o for o in layer.constants if o.matrix]
    read = [o for o in layer.inputs if not _spreads(o, layer.outputs)] or [*layer.inputs]
    types = {operand.type for operand in weights or read} & _NUMBERS
    if "int8" in types and not _INT8_KERNEL.search(layer.tactic):
        return {"int8 made float again"}
    return set(types)


def _spreads(operand: Operand, outputs: tuple[Operand, ...]) -> bool:
    """Whether a value has the shape of an output, or one that broadcasts to it."""
    return any(
        len(operand.shape) == len(output.shape)
        and all(one in (1, other) for one, other in zip(operand.shape, output.shape, strict=True))
        for output in outputs
    )


def check_precision(table: LayerTable, weighted: Mapping[str, str], hint: str = "") -> None:
    """Check that every product computes in its graph's type, and nothing else in INT8.

    Args:
        table: of the engine.
        weighted: type each node must compute in; see engine.graphs.weighted_nodes.
        hint: why nodes may have fallen back from INT8 on this target, and what to do.

    Raises:
        DeployError: nodes compute in another type or are named by no layer, a layer without such a
            node computes in INT8, or a layer writes sums too large for its output type.
    """
    wrong = [node for node, wanted in weighted.items() if table.weighted.get(node, "?") != wanted]
    if len(wrong) == len(weighted) and all(table.weighted.get(n, "?") == "?" for n in wrong):
        raise DeployError("the builder's layers name none of the graph's products")
    if wrong:
        raise DeployError(_said(table, weighted, wrong), _hint(weighted, wrong, hint))
    for layer in table.layers:
        if layer.product and "int8" in _of_product(layer):
            _check_int8(layer, weighted)


def _said(table: LayerTable, weighted: Mapping[str, str], wrong: list[str]) -> str:
    """What is wrong, a clause for each pair of types: ``3 meant for int8 are in float16: a, b``."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node in wrong:
        groups.setdefault((weighted[node], table.weighted.get(node, "?")), []).append(node)
    clauses = []
    for (wanted, found), nodes in groups.items():
        where = "are named by no layer" if found == "?" else f"compute in {found}"
        more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
        clauses.append(
            f"{len(nodes)} meant for {wanted} {where}: {', '.join(nodes[:_SHOWN])}{more}"
        )
    return f"{len(wrong)} of {len(weighted)} products do not compute as asked: {'; '.join(clauses)}"


def _hint(weighted: Mapping[str, str], wrong: list[str], hint: str) -> str:
    if any(weighted[node] == "int8" for node in wrong):
        more = hint or "quantize again with --keep-fp16 for those that are not in int8"
        return f"{_NOTHING_WRITTEN}; {more}"
    return _NOTHING_WRITTEN


def _check_int8(layer: Layer, weighted: Mapping[str, str]) -> None:
    """A layer that multiplies INT8 has nodes meant for it, and room for what it writes."""
    if not any(weighted.get(node) == "int8" for node in layer.nodes):
        raise DeployError(
            f"layer {layer.name} computes in int8, and no node meant for it is in that layer",
            _NOTHING_WRITTEN,
        )
    factors = layer.constants[1:]  # listed by TensorRT-RTX alone
    bare = bool(factors) and all(size == 1 for factor in factors for size in factor.shape)
    if bare and any(output.type == "float16" for output in layer.outputs):
        nodes = [node for node in layer.nodes if weighted.get(node) == "int8"]
        raise DeployError(
            f"{nodes[0]} writes its sums of int8 products as float16 before they are scaled: what "
            "is beyond 65504 becomes infinite",
            "quantize the bundle again; linear layers need scales in float32",
        )


def check_record(
    record: QuantizedRecord | None, weighted: Mapping[str, str], precision: str
) -> None:
    """Check that the types in the graphs are those that ``quantize`` recorded.

    Args:
        record: the manifest's, of this precision.
        weighted: type of each node with weights, of all graphs of the precision together.
        precision: fp16 or int8; fp32 has no record.

    Raises:
        DeployError: there is no record, none of the nodes computes in the precision, or graph and
            record differ; naming nodes.
    """
    if record is None:
        raise DeployError(
            f"the manifest does not say what the {precision} graph was made from",
            "quantize the bundle again",
        )
    fallback = NAMES[record.fallback]
    said = dict.fromkeys(weighted, fallback)
    said |= dict.fromkeys(record.fp32, "float32") | dict.fromkeys(record.int8, "int8")
    wrong = [node for node, kind in said.items() if weighted.get(node, "none of its nodes") != kind]
    if wrong:
        node = wrong[0]
        raise DeployError(
            f"{len(wrong)} nodes with weights of the {precision} graph are not what the manifest "
            f"says: {node} is {weighted.get(node, 'none of its nodes')}, not {said[node]}",
            "quantize the bundle again",
        )
    if NAMES[precision] not in weighted.values():
        raise DeployError(
            f"no node of the {precision} graphs computes in {NAMES[precision]}",
            "quantize the bundle again",
        )
