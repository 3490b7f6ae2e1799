"""Function bodies of the custom nodes: attach them, or inline them and fold the constants left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.bodies import (
    nms_body,
    roi_align_body,
    roi_align_fixed_body,
    sample_body,
    sample_cells_body,
    uncertain_body,
)
from pointrend_deploy.graph.instance.sample_rois import sample_rois_body
from pointrend_deploy.graph.ops import (
    DOMAIN,
    NMS,
    REFINE_LABELS,
    REFINE_LOGITS,
    ROI_ALIGN,
    ROI_ALIGN_FIXED,
    SAMPLE,
    SAMPLE_CELLS,
    SAMPLE_ROIS,
    UNCERTAIN,
    VERSION,
    cells_channels,
)
from pointrend_deploy.graph.upsample_bodies import (
    TWO_BEST,
    refine_labels_body,
    refine_logits_body,
    two_best_body,
)

LARGEST: Final = 2**16
"""Most values of a constant made here."""


def attach_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a FunctionProto for each custom op the graph uses.

    before: nodes of domain ``pointrend``, which only a plugin can run
    after:  the same nodes, and functions of the same names that any ONNX runtime inlines

    Raises:
        DeployError: an op without a body, or nodes of one op that need different ones (a file has
            one body a name): selectors with different k, for which the rounds differ, and
            upsampling of other scales or numbers of classes.
    """
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            nodes.setdefault(node.op_type, []).append(node)
    plain = {
        SAMPLE: sample_body,
        SAMPLE_ROIS: sample_rois_body,
        ROI_ALIGN: roi_align_body,
        ROI_ALIGN_FIXED: roi_align_fixed_body,
        NMS: nms_body,
        REFINE_LABELS: refine_labels_body,
    }
    shapes = _known_shapes(model)
    for name, of_name in sorted(nodes.items()):
        if name in plain:
            model.functions.append(plain[name](opset))
        elif name == UNCERTAIN:
            model.functions.append(uncertain_body(_one_value(of_name, "k"), opset))
        elif name == SAMPLE_CELLS:
            model.functions.append(_sample_cells(of_name, shapes, opset))
        elif name in TWO_BEST:
            model.functions.append(_two_best(name, of_name, shapes, opset))
        elif name == REFINE_LOGITS:
            model.functions.append(refine_logits_body(_one_value(of_name, "scale"), opset))
        else:
            raise DeployError(f"there is no function body for {DOMAIN}::{name}")
    if nodes and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return model


def _sample_cells(
    nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]], opset: int
) -> onnx.FunctionProto:
    """Return the body for nodes that sample two maps, all of as many channels."""
    maps = {tuple(shapes.get(name, ()) for name in node.input[:2]) for node in nodes}
    sampled = {sum(shape[1] for shape in both if len(shape) == 4) for both in maps}
    if len(sampled) != 1:
        raise DeployError(f"nodes {SAMPLE_CELLS} of one graph sample {sorted(sampled)} channels")
    (channels,) = sampled
    return sample_cells_body(cells_channels(channels) - channels, opset)


def _two_best(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
    opset: int,
) -> onnx.FunctionProto:
    """Return the body for upsampling nodes, in strips where their logits have one size."""
    read = {shapes.get(node.input[0], ()) for node in nodes}
    classes = {shape[1] if len(shape) == 4 else 0 for shape in read}
    if len(classes) != 1 or 0 in classes:
        raise DeployError(
            f"nodes {name} of one graph read logits (N, C, h, w) of one C, not {sorted(read)}"
        )
    sizes = {(shape[2], shape[3]) for shape in read}
    hw = sizes.pop() if len(sizes) == 1 else None
    return two_best_body(name, classes.pop(), _one_value(nodes, "scale"), hw, opset)


def _one_value(nodes: Sequence[onnx.NodeProto], name: str) -> int:
    """Return the value of an attribute that all nodes of an op have in common."""
    values: set[int] = {a.i for node in nodes for a in node.attribute if a.name == name}
    if len(values) != 1:
        raise DeployError(
            f"nodes {nodes[0].op_type} of one graph have one {name}, not {sorted(values)}"
        )
    return values.pop()


def inline_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the nodes that call a function by the function's body.

    before: y = PointRendSample(features, points), and the function
    after:  y = Squeeze(GridSample(features, Unsqueeze(2 * points - 1))), and no functions

    Inner nodes are named ``<caller>.<inner>``, so a pattern on the caller's path still finds them.
    Values that a body reads from attributes and shapes are then constants, and are folded. Shapes
    of the inner values come from ONNX's shape inference.
    """
    callers = {
        output: node.name
        for node in model.graph.node
        if node.domain == DOMAIN
        for output in node.output
    }
    if not callers:
        return model
    before = {node.name for node in model.graph.node}
    inlined = onnx.inliner.inline_local_functions(model)
    caller, count = "", 0
    # The inliner puts a body's nodes where the call stood; walking backwards meets the node that
    # writes the call's output first.
    for node in reversed(inlined.graph.node):
        if node.name in before:
            caller = ""
            continue
        written = [callers[output] for output in node.output if output in callers]
        if written and written[0] != caller:
            caller, count = written[0], 0
        node.name = f"{caller}.{node.op_type.lower()}_{count}"
        count += 1
    kept = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    fold_constants(inlined, before)
    return onnx.shape_inference.infer_shapes(inlined)


def fold_constants(model: onnx.ModelProto, besides: Collection[str] = ()) -> None:
    """Replace nodes whose inputs are constants by constants, in place.

    before: n = Shape(boxes); k = Constant(100); most = Unsqueeze(k, [0])
    after:  most = Constant([100]), and constants nothing reads are gone

    Args:
        model: changed.
        besides: names of nodes that are left as they are.
    """
    shapes = _known_shapes(model)
    constants: dict[str, NDArray[Any]] = {}
    opsets = list(model.opset_import)
    for node in model.graph.node:
        if node.name in besides or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Shape":
            value = _shape(node, shapes.get(node.input[0]))
        elif node.op_type == "Constant" or all(name in constants for name in node.input):
            value = _evaluate(node, {name: constants[name] for name in node.input}, opsets)
        else:
            continue
        if value is None or value.size > LARGEST:
            continue
        constants[node.output[0]] = value
        if node.op_type != "Constant":
            _make_constant(node, value)
    _drop_unread(model.graph, set(constants), besides)


def _known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    graph = model.graph
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _shape(node: onnx.NodeProto, shape: tuple[int, ...] | None) -> NDArray[Any] | None:
    if shape is None:
        return None
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)


def _evaluate(
    node: onnx.NodeProto, inputs: dict[str, NDArray[Any]], opsets: list[onnx.OperatorSetIdProto]
) -> NDArray[Any] | None:
    if len(node.output) != 1:
        return None
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in inputs.items()
        ],
        [onnx.ValueInfoProto(name=node.output[0])],
    )
    single = onnx.helper.make_model(graph, opset_imports=opsets)
    found = ReferenceEvaluator(single).run(None, inputs)
    return np.asarray(next(iter(found)))


def _make_constant(node: onnx.NodeProto, value: NDArray[Any]) -> None:
    node.op_type = "Constant"
    del node.input[:], node.attribute[:]
    tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape))
    node.attribute.append(onnx.helper.make_attribute("value", tensor))


def _drop_unread(graph: onnx.GraphProto, constants: set[str], besides: Collection[str]) -> None:
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    kept = [
        node
        for node in graph.node
        if node.name in besides or node.output[0] not in constants or node.output[0] in read
    ]
    del graph.node[:]
    graph.node.extend(kept)
