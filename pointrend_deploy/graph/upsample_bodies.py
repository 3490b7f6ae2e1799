"""Function bodies of the ops that upsample logits and put recomputed points in.

Labels and uncertainty are found without a C x H x W tensor: classes are visited one after the
other (a few side by side), keeping the best and second best so far. Each cell costs a few
comparisons a class and no sort; the upsampled logits exist for a few classes and a strip of rows at
a time.

This needs a runtime to run the nodes in the order they are written. ONNX Runtime does not: it
walks back from the outputs and takes, of a node's inputs, the one written last. Three choices here,
none of which changes a value, make that walk follow the intended order: the upsampled classes are
written before the running maxima, the labels after them; the best is the maximum of three, with
the second best among them, so that the two advance together; and a strip's labels and uncertainty
leave it as one tensor. Without them all classes of all strips are alive at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pointrend_deploy.graph.bodies import finished
from pointrend_deploy.graph.ops import (
    DOMAIN,
    REFINE_LABELS,
    REFINE_LOGITS,
    UPSAMPLE_LABELS,
    UPSAMPLE_UNCERTAINTY,
)

SIDE_BY_SIDE: Final = 2
"""Classes upsampled together. Resize in ONNX Runtime runs one thread a channel."""

STRIP_BYTES: Final = 16 * 2**20
"""Working set of a strip: it fits the last-level cache of most machines."""

_LIVE_PLANES: Final = 6
"""Tensors of a group of classes alive at once: new, best, second, label and two results."""

_LOWEST: Final = float(np.finfo(np.float32).min) / 2
"""Half the lowest finite number: lower than any logit, and safe to interpolate."""


def strip_rows(width: int, groups: int, budget: int = STRIP_BYTES) -> int:
    """Return the output rows of a strip of ``width`` columns and ``groups`` classes, at least 2."""
    return max(2, budget // (4 * width * groups * _LIVE_PLANES))


def two_best_body(
    name: str,
    classes: int,
    scale: int,
    hw: tuple[int, int] | None,
    opset: int = 18,
    budget: int = STRIP_BYTES,
) -> onnx.FunctionProto:
    """The body of PointRendUpsampleUncertainty or -Labels, whichever ``name`` is.

    Args:
        name: of the op.
        classes: C of the logits, 2 or more.
        scale: the attribute of its nodes.
        hw: (h, w) of the logits, to cut them into strips; None for any size, in one strip.
        opset: of the graph.
        budget: bytes of a strip's working set.
    """
    writer = _Writer(name, ["logits"])
    values = writer.node("Cast", "logits", to=onnx.TensorProto.FLOAT)
    with_labels = name == UPSAMPLE_LABELS
    joined = _Scan(writer, classes, scale, with_labels).strips(values, hw, budget)
    flat = writer.constant([0, -1])
    if with_labels:
        label, unsure = (
            writer.node("Gather", joined, writer.constant(row), axis=1) for row in (0, 1)
        )
        uncertainty = writer.node("Reshape", unsure, flat)
        whole = writer.node("Reshape", label, flat)
        labels = writer.node("Cast", whole, to=onnx.TensorProto.INT32)
        return writer.finished([uncertainty, labels], opset)
    return writer.finished([writer.node("Reshape", joined, flat)], opset)


def refine_logits_body(scale: int, opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendRefineLogits for a value of its attribute."""
    writer = _Writer(REFINE_LOGITS, ["logits", "indices", "point_logits"])
    kind = {"to": onnx.TensorProto.FLOAT}
    up = writer.upsampled(writer.node("Cast", "logits", **kind), scale)
    flat = writer.node("Reshape", up, writer.constant([0, 0, -1]))
    updates = writer.node("Cast", "point_logits", **kind)
    row = writer.node("Unsqueeze", "indices", writer.constant([1]))
    where = writer.node("Expand", row, writer.node("Shape", "point_logits"))
    refined = writer.node("ScatterElements", flat, where, updates, axis=2)
    return writer.finished([writer.node("Reshape", refined, writer.node("Shape", up))], opset)


def refine_labels_body(opset: int = 18) -> onnx.FunctionProto:
    """The body of PointRendRefineLabels."""
    writer = _Writer(REFINE_LABELS, ["labels", "indices", "point_logits"])
    best = writer.node("ArgMax", "point_logits", axis=1, keepdims=0)
    updates = writer.node("Cast", best, to=onnx.TensorProto.INT32)
    return writer.finished(
        [writer.node("ScatterElements", "labels", "indices", updates, axis=1)], opset
    )


@dataclass
class _Writer:
    """Writes the nodes of a function, one after the other.

    Attributes:
        name: of the op.
        inputs: of the function.
        nodes: so far.
        constants: names of constants by type, shape and value: one node for all their readers.
    """

    name: str
    inputs: list[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of one output and return the output's name."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: int | float | list[int] | list[float]) -> str:
        """Return the name of a constant, int64 or float32."""
        array = np.array(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.node("Constant", value=numpy_helper.from_array(array))
        return self.constants[key]

    def slice(self, value: str, axis: int, start: int, end: int, step: int = 1) -> str:
        bounds = [self.constant([number]) for number in (start, end, axis, step)]
        return self.node("Slice", value, *bounds)

    def upsampled(self, planes: str, scale: int) -> str:
        """Upsample (N, C, h, w) as torch's bilinear interpolation without aligned corners does."""
        scales = self.constant([1.0, 1.0, float(scale), float(scale)])
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "antialias": 0}
        return self.node("Resize", planes, "", scales, **mode)

    def finished(self, outputs: list[str], opset: int) -> onnx.FunctionProto:
        """Return the function, with the attribute of the ops that upsample."""
        body = onnx.FunctionProto(domain=DOMAIN, name=self.name)
        body.input.extend(self.inputs)
        body.node.extend(self.nodes)
        body.output.extend(outputs)
        if self.name != REFINE_LABELS:
            body.attribute.append("scale")
        return finished(self.name, body, opset)


@dataclass(frozen=True)
class _Scan:
    """The running maxima over the classes.

    The classes are cut into ``groups`` runs of ``turns`` neighbours; turn j handles the j-th class
    of every run as one tensor. Within a run and between runs the lower class comes first and wins
    ties, so the label is the first class of the highest logit.
    """

    writer: _Writer
    classes: int
    scale: int
    with_labels: bool

    @property
    def groups(self) -> int:
        return max(1, min(SIDE_BY_SIDE, self.classes // 2))

    @property
    def turns(self) -> int:
        return -(-self.classes // self.groups)

    def strips(self, logits: str, hw: tuple[int, int] | None, budget: int) -> str:
        """Scan strip by strip: (N, 2 or 1, h * scale, w * scale), label first.

        Strips are exact: each is upsampled with one more source row above and below, whose results
        are cut off, so every kept row sees the rows it would see in the whole map. All have the
        same shape, those at the edges by taking more rows from inside: a runtime reuses their
        memory.
        """
        if hw is None:
            return self.scan(logits)
        height, width = hw
        rows = max(1, strip_rows(width * self.scale, self.groups, budget) // self.scale)
        rows = -(-height // -(-height // rows))
        if rows == height:
            return self.scan(logits)
        window = min(rows + 2, height)
        found = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first = min(max(top - 1, 0), height - window)
            strip = self.scan(self.writer.slice(logits, 2, first, first + window))
            above, below = (top - first) * self.scale, (bottom - first) * self.scale
            found.append(self.writer.slice(strip, 2, above, below))
        return self.writer.node("Concat", *found, axis=2)

    def scan(self, logits: str) -> str:
        """Label and uncertainty of one strip, (N, 2, H, W), or (N, 1, H, W) uncertainty."""
        add, writer = self.writer.node, self.writer
        missing = self.groups * self.turns - self.classes
        if missing:
            widths = writer.constant([0, 0, 0, 0, 0, missing, 0, 0])
            logits = add("Pad", logits, widths, writer.constant(_LOWEST), mode="constant")
        last = np.iinfo(np.int64).max
        parts = [writer.slice(logits, 1, turn, last, self.turns) for turn in range(self.turns)]
        planes = [writer.upsampled(part, self.scale) for part in parts]
        best, second, raised = self._running(planes)
        label = ""
        if self.with_labels:
            # The last turn that raised the best is the label: turns ascend, a maximum keeps it.
            label = raised[0]
            for each in raised[1:]:
                label = add("Max", label, each)
        return self._merged(best, second, label)

    def _running(self, planes: list[str]) -> tuple[str, str, list[str]]:
        """Best, second best, and of each turn but the first its number where it raised the best."""
        add = self.writer.node
        best, second = planes[0], ""
        raised = []
        for turn, new in enumerate(planes[1:], start=1):
            if self.with_labels:
                over = add("Cast", add("Greater", new, best), to=onnx.TensorProto.FLOAT)
                if turn > 1:
                    over = add("Mul", over, self.writer.constant(float(turn)))
                raised.append(over)
            lower = add("Min", best, new)
            second = add("Max", second, lower) if second else lower
            best = add("Max", best, new, second)
        return best, second, raised

    def _merged(self, best: str, second: str, label: str) -> str:
        """Merge the runs of classes, lowest first: (N, groups, H, W) -> (N, 2 or 1, H, W)."""
        add = self.writer.node

        def run_of(value: str, run: int) -> str:
            return self.writer.slice(value, 1, run, run + 1)

        top, runner_up = run_of(best, 0), run_of(second, 0)
        winner = run_of(label, 0) if label else ""
        for run in range(1, self.groups):
            new = run_of(best, run)
            if label:
                higher = self.writer.constant(float(run * self.turns))
                other = add("Add", run_of(label, run), higher)
                winner = add("Where", add("Greater", new, top), other, winner)
            lower = add("Max", run_of(second, run), add("Min", top, new))
            runner_up = add("Max", runner_up, lower)
            top = add("Max", top, new)
        unsure = add("Sub", runner_up, top)
        return add("Concat", winner, unsure, axis=1) if label else unsure


TWO_BEST: Final = frozenset({UPSAMPLE_UNCERTAINTY, UPSAMPLE_LABELS})
"""The ops that :func:`two_best_body` is for."""
