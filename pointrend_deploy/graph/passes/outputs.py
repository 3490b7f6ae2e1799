"""Keep some of a graph's outputs; the values behind the others keep their names."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs


def keep_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Turn every other output into an inner value, and drop what nothing needs any more.

    The outputs come in the order of ``names``.

    before: outputs labels, p2, ..., p6, coarse, step0.indices, ...
    after:  output labels; inner values p2, ..., coarse, step0.indices, ...; no p6

    So a graph that gives only labels still calls its stages by their names, and verification can
    ask for them by marking them as outputs again.
    """
    if list(names) == [output.name for output in model.graph.output]:
        return model
    graph = gs.import_onnx(model)
    outputs = {output.name: output for output in graph.outputs}
    graph.outputs = [outputs[name] for name in names]
    graph.cleanup()
    kept: onnx.ModelProto = gs.export_onnx(graph)
    kept.functions.extend(
        f for f in model.functions if f.name not in {g.name for g in kept.functions}
    )
    return kept
