"""Give the custom nodes their function bodies, or put the bodies in their place."""

from __future__ import annotations

import onnx
import onnx.inliner

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.bodies import sample_body, uncertain_body
from pointrend_deploy.graph.instance_bodies import nms_body, roi_align_body
from pointrend_deploy.graph.instance_ops import NMS, ROI_ALIGN
from pointrend_deploy.graph.ops import DOMAIN, SAMPLE, UNCERTAIN, VERSION
from pointrend_deploy.graph.passes.fold import fold_constants


def attach_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a FunctionProto for each custom op the graph uses.

    before: nodes of domain ``pointrend``, which only a plugin can run
    after:  the same nodes, and functions of the same names that any ONNX runtime inlines

    Raises:
        DeployError: an op without a body, or selectors with different k (a file has one body a
            name, and the rounds of the selector's body depend on k).
    """
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    for name in sorted(used - {SAMPLE, UNCERTAIN, ROI_ALIGN, NMS}):
        raise DeployError(f"there is no function body for {DOMAIN}::{name}")
    sizes = {
        attribute.i
        for node in model.graph.node
        if node.domain == DOMAIN and node.op_type == UNCERTAIN
        for attribute in node.attribute
        if attribute.name == "k"
    }
    if len(sizes) > 1:
        raise DeployError(f"selectors with different k in one graph: {sorted(sizes)}")
    if SAMPLE in used:
        model.functions.append(sample_body(opset))
    if UNCERTAIN in used:
        model.functions.append(uncertain_body(sizes.pop(), opset))
    if ROI_ALIGN in used:
        model.functions.append(roi_align_body(opset))
    if NMS in used:
        model.functions.append(nms_body(opset))
    if used and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return model


def inline_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put every function's body in place of the nodes that call it.

    before: y = PointRendSample(features, points), and the function
    after:  y = Squeeze(GridSample(features, Unsqueeze(2 * points - 1))), and no functions

    Inner nodes are named ``<caller>.<inner>``, so a pattern on the caller's path still finds them.
    What a body reads from attributes and shapes is constant by then, and folded. Shapes of the
    inner values come from ONNX's shape inference.
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
