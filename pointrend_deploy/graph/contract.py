"""Refuse a graph that breaks the promises a bundle makes about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pointrend_deploy.bundle.forms import Ops
from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.allowed_ops import (
    ALLOWED_OPS,
    FIXED_ATTRIBUTES,
    QUANTIZING_OPS,
    default_of,
)
from pointrend_deploy.graph.ops import (
    DOMAIN,
    NMS,
    PLUGIN_ATTRIBUTES,
    REFINE_LABELS,
    REFINE_LOGITS,
    ROI_ALIGN,
    ROI_ALIGN_FIXED,
    SAMPLE,
    SAMPLE_CELLS,
    SAMPLE_ROIS,
    UNCERTAIN,
    UPSAMPLE_LABELS,
    UPSAMPLE_SCALES,
    UPSAMPLE_UNCERTAINTY,
)
from pointrend_deploy.graph.options import MAX_LEVELS, TOPK_LIMIT
from pointrend_deploy.recipe.instance import MAX_SAMPLING

TensorSpecs = Mapping[str, tuple[str, tuple[int | str, ...]]]
"""Name -> (dtype as numpy spells it, shape); a size that is left open is its name."""

CUSTOM_ARITY: Final = {
    SAMPLE: (2, 1),
    SAMPLE_CELLS: (3, 1),
    SAMPLE_ROIS: (5, 1),
    UNCERTAIN: (1, 1),
    ROI_ALIGN: (1 + MAX_LEVELS, 1),
    ROI_ALIGN_FIXED: (1 + MAX_LEVELS, 1),
    NMS: (2, 2),
    UPSAMPLE_UNCERTAINTY: (1, 1),
    UPSAMPLE_LABELS: (1, 2),
    REFINE_LOGITS: (3, 1),
    REFINE_LABELS: (3, 1),
}
"""Inputs and outputs of each custom op."""

_POOLED: Final = {"first_level": (0, 16), "levels": (1, MAX_LEVELS), "side": (1, math.inf)}
_UPSAMPLED: Final = {"scale": (UPSAMPLE_SCALES[0], UPSAMPLE_SCALES[-1])}
_RANGES: Final[Mapping[str, Mapping[str, tuple[float, float]]]] = {
    SAMPLE: {},
    SAMPLE_CELLS: {"grid_height": (1, math.inf), "grid_width": (1, math.inf)},
    SAMPLE_ROIS: {},
    UNCERTAIN: {"k": (1, math.inf)},
    ROI_ALIGN: _POOLED,
    ROI_ALIGN_FIXED: {**_POOLED, "sampling_ratio": (1, MAX_SAMPLING)},
    NMS: {
        "k": (1, TOPK_LIMIT),
        "iou_threshold": (0.0, 1.0),
        "score_threshold": (-math.inf, math.inf),
    },
    UPSAMPLE_UNCERTAINTY: _UPSAMPLED,
    UPSAMPLE_LABELS: _UPSAMPLED,
    REFINE_LOGITS: _UPSAMPLED,
    REFINE_LABELS: {},
}
"""Attributes of each custom op beside the plugin's, and their least and greatest values."""

FP32_TYPES: Final = frozenset({"float32", "int64", "int32", "bool", "uint8"})
"""Types of values in an FP32 graph."""


@dataclass(frozen=True)
class Expected:
    """The inputs, outputs and types that a graph must have.

    Attributes:
        inputs: name -> (dtype, shape), in order. If an input has an open size, values may too.
        outputs: the same for outputs.
        opset: 18 or 19.
        ops: ``plugin`` or ``native``.
        types: dtypes its values may have.
    """

    inputs: TensorSpecs
    outputs: TensorSpecs
    opset: int = 18
    ops: Ops = "plugin"
    types: frozenset[str] = FP32_TYPES


def check_contract(model: onnx.ModelProto, expected: Expected) -> None:
    """Check a graph against what a bundle promises about it.

    Raises:
        DeployError: a promise is broken; the message says which, and where in the graph.
    """
    _check_opsets(model, expected)
    _check_ends("input", model.graph.input, expected.inputs)
    _check_ends("output", model.graph.output, expected.outputs)
    _check_values(model, expected)
    functions = {function.name: function for function in model.functions}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            _check_custom(node, expected, functions)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    bodies = {output for node in model.graph.node for output in node.output}
    if len(bodies) != sum(len(node.output) for node in model.graph.node):
        raise DeployError("two nodes of the graph write the same value")
    allowed = ALLOWED_OPS | QUANTIZING_OPS if "int8" in expected.types else ALLOWED_OPS
    _check_nodes(model.graph.node, constants, allowed)
    for function in model.functions:
        _check_nodes(function.node, {}, ALLOWED_OPS)


def _check_opsets(model: onnx.ModelProto, expected: Expected) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.pop("", 0) or opsets.pop("ai.onnx", 0)
    if opset not in (18, 19):
        raise DeployError(
            f"the graph is of opset {opset}, not 18 or 19",
            "at opset 20 TensorRT silently samples the nearest cell; export again at 18",
        )
    if opset != expected.opset:
        raise DeployError(f"the graph is of opset {opset}, not {expected.opset} as asked")
    for domain in opsets:
        if domain != DOMAIN or expected.ops == "native":
            raise DeployError(
                f"a graph with --ops {expected.ops} imports the domain {domain!r}",
                "only standard ops and, with --ops plugin, the domain pointrend may be in it",
            )


def _check_ends(kind: str, values: Iterable[onnx.ValueInfoProto], expected: TensorSpecs) -> None:
    found = {value.name: spec_of(value) for value in values}
    if list(found) != list(expected):
        raise DeployError(f"the graph's {kind}s are {list(found)}, not {list(expected)}")
    for name, (dtype, shape) in expected.items():
        if found[name] != (dtype, shape):
            raise DeployError(
                f"{kind} {name} is {found[name][0]} {list(found[name][1])}, "
                f"not {dtype} {list(shape)}"
            )


def spec_of(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str, ...]]:
    """Return dtype and shape of a value; an open size is given by its name."""
    tensor = value.type.tensor_type
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return _dtype_name(tensor.elem_type), dims


def _dtype_name(code: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        return f"ONNX type {code}"


def _check_values(model: onnx.ModelProto, expected: Expected) -> None:
    known = set()
    open_sizes = any(
        isinstance(size, str) for _, shape in expected.inputs.values() for size in shape
    )
    by_data = set() if open_sizes else _sized_by_data(model)
    for value in [*model.graph.value_info, *model.graph.output]:
        known.add(value.name)
        dtype, shape = spec_of(value)
        fixed = all(isinstance(side, int) and side > 0 for side in shape)
        if not fixed and not open_sizes and value.name not in by_data:
            raise DeployError(
                f"value {value.name} has the shape {list(shape)}; every size is fixed and positive"
            )
        if dtype not in expected.types:
            raise DeployError(
                f"value {value.name} is {dtype}; allowed are {sorted(expected.types)}"
            )
    for tensor in model.graph.initializer:
        if _dtype_name(tensor.data_type) not in expected.types:
            raise DeployError(f"constant {tensor.name} is {_dtype_name(tensor.data_type)}")
    for node in model.graph.node:
        for output in node.output:
            if output and output not in known:
                raise DeployError(f"value {output} of node {node.name} has no known shape")


def _sized_by_data(model: onnx.ModelProto) -> set[str]:
    """Values whose sizes depend on what NonMaxSuppression keeps; only a native graph has them.

    They end where a node gives a value of a fixed shape again.
    """
    fixed = {
        value.name
        for value in [*model.graph.value_info, *model.graph.output]
        if all(isinstance(side, int) and side > 0 for side in spec_of(value)[1])
    }
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "NonMaxSuppression" or found.intersection(node.input):
            found.update(name for name in node.output if name not in fixed)
    return found


def _check_custom(
    node: onnx.NodeProto, expected: Expected, functions: Mapping[str, onnx.FunctionProto]
) -> None:
    if expected.ops == "native":
        raise DeployError(f"node {node.name} is custom ({node.op_type}); --ops native has none")
    if node.op_type not in CUSTOM_ARITY:
        raise DeployError(f"node {node.name}: {DOMAIN} has no op {node.op_type}")
    if (len(node.input), len(node.output)) != CUSTOM_ARITY[node.op_type]:
        raise DeployError(f"node {node.name}: {node.op_type} has a fixed number of inputs")
    attributes = {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    ranges = _RANGES[node.op_type]
    needed = {*PLUGIN_ATTRIBUTES, *ranges}
    if not needed <= set(attributes):
        raise DeployError(
            f"node {node.name} lacks the attributes {sorted(needed - set(attributes))}",
            "TensorRT finds a plugin's creator by plugin_namespace and plugin_version",
        )
    for name, (least, most) in ranges.items():
        if not least <= attributes[name] <= most:
            raise DeployError(
                f"node {node.name}: {node.op_type} with {name} = {attributes[name]}; it is "
                f"{least:g} to {most:g}"
            )
    if attributes.get("scale", 2) not in UPSAMPLE_SCALES:
        raise DeployError(
            f"node {node.name}: {node.op_type} with scale = {attributes['scale']}; it is 2, 4, 8 "
            "or 16"
        )
    function = functions.get(node.op_type)
    if function is None or function.domain != DOMAIN:
        raise DeployError(
            f"node {node.name}: {node.op_type} has no function body",
            "without it only a runtime that has the plugin can run the file",
        )


def _check_nodes(
    nodes: Iterable[onnx.NodeProto],
    constants: Mapping[str, TensorProto],
    allowed: frozenset[str],
) -> None:
    sizes: dict[str, list[int]] = {
        name: [int(v) for v in numpy_helper.to_array(tensor).reshape(-1)]
        for name, tensor in constants.items()
        if tensor.data_type == TensorProto.INT64 and len(tensor.dims) <= 1
    }
    for node in nodes:
        if node.domain == DOMAIN:
            continue
        values = dict(_attributes(node))
        if node.domain not in ("", "ai.onnx") or node.op_type not in allowed:
            raise DeployError(
                f"node {node.name}: {node.domain}::{node.op_type} is not allowed in a graph",
                f"allowed are {', '.join(sorted(allowed))}",
            )
        if node.op_type == "Constant":
            sizes |= _whole_numbers(node, values)
        elif node.op_type == "Unsqueeze" and sizes.get(node.input[0]) == _CHECKED_AT_THE_NODE:
            sizes[node.output[0]] = _CHECKED_AT_THE_NODE
        _check_attributes(node, values)
        if node.op_type == "TopK":
            _check_topk(node, sizes)


_CHECKED_AT_THE_NODE: Final = [1]
"""Placeholder for a body's ``k``, which comes from an attribute of the calling node."""


def _whole_numbers(node: onnx.NodeProto, values: Mapping[str, object]) -> dict[str, list[int]]:
    """Return {output name: values} of a Constant of whole numbers, {} for any other."""
    if any(attribute.ref_attr_name == "k" for attribute in node.attribute):
        return {node.output[0]: _CHECKED_AT_THE_NODE}
    constant = values.get("value_ints", values.get("value"))
    if isinstance(constant, TensorProto):
        array = numpy_helper.to_array(constant)
        constant = array.reshape(-1).tolist() if array.dtype == np.int64 else None
    return {node.output[0]: list(constant)} if isinstance(constant, (list, tuple)) else {}


def _attributes(node: onnx.NodeProto) -> Iterator[tuple[str, object]]:
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        yield attribute.name, value.decode() if isinstance(value, bytes) else value


def _check_attributes(node: onnx.NodeProto, values: Mapping[str, object]) -> None:
    for name, allowed in FIXED_ATTRIBUTES.get(node.op_type, {}).items():
        value = values.get(name, default_of(node.op_type, name))
        if value not in allowed:
            raise DeployError(
                f"node {node.name}: {node.op_type} has {name}={value}; it must be "
                f"{' or '.join(map(str, allowed))}"
            )


def _check_topk(node: onnx.NodeProto, sizes: Mapping[str, list[int]]) -> None:
    k = sizes.get(node.input[1])
    if k is None or len(k) != 1:
        raise DeployError(f"node {node.name}: the k of TopK is not a constant")
    if not 1 <= k[0] <= TOPK_LIMIT:
        raise DeployError(
            f"node {node.name}: TopK with k = {k[0]}; TensorRT takes 1 to {TOPK_LIMIT}",
            "select in rounds, as the body of PointRendUncertain does",
        )
