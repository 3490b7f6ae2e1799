"""Additions of residual blocks, and which of their two inputs is the shortcut.

A builder writes ``conv -> add -> relu`` as one INT8 kernel when the other input of the addition is
quantised too: the sum is taken before anything is rounded. So only the shortcut is quantised, never
the output of the layer that the addition is fused with.
"""

from __future__ import annotations

import onnx

from pointrend_deploy.quantize.layers import WeightedLayer
from pointrend_deploy.quantize.values import Values


def shortcuts(
    model: onnx.ModelProto, layers: tuple[WeightedLayer, ...]
) -> dict[str, tuple[str, int]]:
    """The residual additions of a graph.

    An Add of two computed values is one if (a) one of them is the output of a layer with weights
    that nothing else reads, and (b) the other is either a value that this layer was computed from
    (the block's input), or the output of a layer that reads such a value itself and has fewer
    layers with weights behind it (the shortcut's convolution). A pyramid's top-down addition is
    none: the upper level was not what the lateral convolution was computed from.

    Args:
        model: the graph.
        layers: its layers with weights.

    Returns:
        By the layer the addition is fused with: the Add's name, and the index of its shortcut
        input.
    """
    values = Values(model)
    outputs = {output.name for output in model.graph.output}
    activation = {layer.name: layer.activation for layer in layers}
    found = {}
    for node in model.graph.node:
        if node.op_type != "Add" or any(name in values.constants for name in node.input):
            continue
        fused = [
            index
            for index, name in enumerate(node.input)
            if (maker := values.makers.get(name)) is not None
            and maker.name in activation
            and len(values.readers[name]) == 1
            and name not in outputs
            and _is_shortcut(node.input[1 - index], maker, values, activation)
        ]
        if len(fused) == 1:
            maker = values.makers[node.input[fused[0]]]
            found[maker.name] = (node.name, 1 - fused[0])
    return found


def _is_shortcut(
    other: str, layer: onnx.NodeProto, values: Values, activation: dict[str, int]
) -> bool:
    behind = _depths(layer.input[activation[layer.name]], values, activation)
    if other in behind:
        return True
    maker = values.makers.get(other)
    if maker is None or maker.name not in activation:
        return False
    return behind.get(maker.input[activation[maker.name]], 0) > 0


def _depths(value: str, values: Values, activation: dict[str, int]) -> dict[str, int]:
    """Every value that ``value`` is computed from, with the layers with weights between them.

    Along one of the paths where there are several: what is asked is only whether there are any
    layers, and within a branch that is so on all paths or on none.
    """
    depths = {value: 0}
    waiting = [value]
    while waiting:
        name = waiting.pop()
        node = values.makers.get(name)
        if node is None:
            continue
        step = 1 if node.name in activation else 0
        sources = [node.input[activation[node.name]]] if step else list(node.input)
        for source in sources:
            if source and source not in values.constants and source not in depths:
                depths[source] = depths[name] + step
                waiting.append(source)
    return depths
