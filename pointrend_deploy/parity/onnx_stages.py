"""The inner stages of a bundle's graphs of every precision, as ONNX Runtime computes them.

Which values are stages is read from the FP32 graph, whose nodes are named by module path; the
graphs of the other precisions keep the names of values. A stage is marked as an output besides.

MERGED: A graph in ONNX Runtime with its inner stages marked as outputs besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pointrend_deploy.graph.allowed_ops import WEIGHTED
from pointrend_deploy.onnx_session import call, open_session

Array = npt.NDArray[Any]
_BLOCK = re.compile(r"(backbone\.(?:[a-z_]+\.)*?(?:stem|blocks\.\d+|res\d+\.\d+))(?:\.|$)")
_NAMED = re.compile(r"p\d+|coarse|step\d+\.(?:indices|point_logits)|logits|mask_logits")
_HEADS = re.compile(
    r"(proposal_generator\.rpn_head\.(?:objectness_logits|anchor_deltas)|"
    r"roi_heads\.box_predictor\.(?:cls_score|bbox_pred))(?:\.|$)"
)
_COARSE = "roi_heads.mask_head.coarse_head.prediction"
_REPORT = "please report this with the recipe and the command line"


@dataclass(frozen=True)
class Tap:
    """A stage: its name in reports, and the values of the graph it consists of."""

    stage: str
    values: tuple[str, ...]


def taps(graph: onnx.GraphProto) -> tuple[Tap, ...]:
    """The stages of an FP32 graph, in network order.

    They are the output of every residual block of the backbone, the levels of the pyramid, coarse
    logits, points and their logits by subdivision step, final logits where the graph holds them;
    of an instance graph also the outputs of the RPN's and the box head's predictors.
    """
    place: dict[str, int] = {}
    found: dict[str, list[str]] = {}
    for number, node in enumerate(graph.node):
        block, head = _BLOCK.match(node.name), _HEADS.match(node.name)
        if block:
            found[block[1]] = [node.output[0]]
            place[block[1]] = number
        elif head and node.op_type in WEIGHTED:
            found.setdefault(head[1], []).append(node.output[0])
            place[head[1]] = number
        for value in node.output:
            if _NAMED.fullmatch(value):
                found[value] = [value]
                place[value] = number
    for stage, (values, number) in _mask_steps(graph, set(found)).items():
        found[stage], place[stage] = values, number
    return tuple(Tap(stage, tuple(found[stage])) for stage in sorted(found, key=place.__getitem__))


def _mask_steps(graph: onnx.GraphProto, known: set[str]) -> dict[str, tuple[list[str], int]]:
    """Points and logits of the mask head's steps where the graph has not named them so.

    A step scatters its logits at its points, so both are inputs of one ScatterElements node. A
    batch is refined picture by picture: a stage has a value for each, in the pictures' order.
    """
    found: dict[str, list[str]] = {}
    last: dict[str, int] = {}
    if any(re.fullmatch(r"step\d+\.indices", name) for name in known):
        return {}
    makers = {value: node for node in graph.node for value in node.output}
    steps: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        values = {}
        if _scatters(node):
            steps[node.name] = step = steps.get(_scattered_before(node, makers), 0) + 1
            values = {
                f"step{step}.indices": node.input[1],
                f"step{step}.point_logits": node.input[2],
            }
        elif node.name.startswith(_COARSE) and node.op_type in WEIGHTED:
            values = {"coarse": node.output[0]}
        for stage, value in values.items():
            found.setdefault(stage, []).append(value)
            last[stage] = number
    return {name: (values, last[name]) for name, values in found.items() if name not in known}


def _scatters(node: onnx.NodeProto) -> bool:
    return node.op_type == "ScatterElements" and node.name.startswith("roi_heads.mask_head.")


def _scattered_before(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> str:
    """Name of the step before: what scattered into the grid that this one refines; or none."""
    before = makers.get(node.input[0])
    while before is not None and not _scatters(before):
        before = makers.get(before.input[0]) if before.input else None
    return "" if before is None else before.name


class TappedGraph:
    """A graph in ONNX Runtime whose stages are among its outputs.

    Args:
        path: of the graph.
        wanted: stages; values that this graph does not compute are left out.
        given: dtypes of values that are fed instead of computed, as inputs ``given.<name>``. Nodes
            that nothing wanted needs are left out.
        also: further values to give, by their own names.

    Raises:
        DeployError: ONNX Runtime does not load it.
    """

    def __init__(
        self,
        path: Path,
        wanted: Sequence[Tap],
        given: Mapping[str, npt.DTypeLike] | None = None,
        also: Sequence[str] = (),
    ) -> None:
        model = onnx.load(str(path))
        made = {value for node in model.graph.node for value in node.output}
        self._taps = [tap for tap in wanted if made.issuperset(tap.values)]
        self._also = [name for name in also if name in made]
        self._values = list(
            dict.fromkeys([*(v for tap in self._taps for v in tap.values), *self._also])
        )
        _feed(model, given or {})
        _give_only(model, self._values)
        self.inputs = tuple(value.name for value in model.graph.input)
        raw = model.SerializeToString()
        del model
        self._session = open_session(raw)

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[dict[str, list[Array]], list[Array]]:
        """The values of each stage, and those of ``also``.

        Args:
            inputs: by name; those it does not read are left out.

        Raises:
            DeployError: ONNX Runtime fails.
        """
        read = {name: inputs[name] for name in self.inputs}
        failure = "ONNX Runtime failed while computing inner stages"
        values = call(self._session, self._values, read, failure)
        results = dict(zip(self._values, values, strict=True))
        stages = {tap.stage: [results[v] for v in tap.values] for tap in self._taps}
        return stages, [results[name] for name in self._also]


class SemanticStages:
    """The stages of a semantic bundle's graph; see ``parity.precision_compare.Stages``."""

    def __init__(self, path: Path, wanted: Sequence[Tap]) -> None:
        self._graph = TappedGraph(path, wanted)

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Stages by name in network order, (N, ...) each."""
        stages, _ = self._graph(inputs)
        return {name: values[0] for name, values in stages.items()}


def read_graph(path: Path) -> onnx.GraphProto:
    """A graph without its large constants: enough to find its stages in."""
    model = onnx.load(str(path))
    model.graph.ClearField("initializer")
    return model.graph


def _feed(model: onnx.ModelProto, given: Mapping[str, npt.DTypeLike]) -> None:
    """Make inputs of values: whoever read ``x`` reads ``given.x``; ``x`` is still computed."""
    for name, dtype in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        fed = onnx.helper.make_tensor_value_info(f"given.{name}", kind, None)
        model.graph.input.append(fed)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in given:
                node.input[place] = f"given.{name}"


def _give_only(model: onnx.ModelProto, values: Sequence[str]) -> None:
    """``values`` become the outputs; nodes, constants and inputs nothing needs are dropped."""
    graph = model.graph
    needed, kept = set(values), []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    constants = [each for each in graph.initializer if each.name in needed]
    inputs = [each for each in graph.input if each.name in needed]
    for field, content in (("node", nodes), ("initializer", constants), ("input", inputs)):
        copies = [type(each).FromString(each.SerializeToString()) for each in content]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("output")
    graph.ClearField("value_info")  # ONNX Runtime infers types, so a precision needs no other code
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)


def run_with_stages(
    graph: onnx.ModelProto, inputs: Mapping[str, Array], stages: Mapping[str, npt.DTypeLike]
) -> dict[str, Array]:
    """One call of a graph.

    Args:
        graph: not changed.
        inputs: by name.
        stages: dtype by name of values that are given beside the outputs; those the graph does not
            compute are left out.

    Returns:
        Its outputs, then the stages, by name.

    Raises:
        DeployError: ONNX Runtime does not run it.
    """
    widened = onnx.ModelProto()
    widened.CopyFrom(graph)
    made = {output for node in graph.graph.node for output in node.output}
    has = {output.name for output in graph.graph.output}
    for name, dtype in stages.items():
        if name in made - has:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            widened.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    names = [output.name for output in widened.graph.output]
    raw = widened.SerializeToString()
    del widened
    session = open_session(raw, hint=_REPORT)
    del raw
    failure = f"ONNX Runtime {version('onnxruntime')} does not run the exported graph"
    return dict(zip(names, call(session, names, inputs, failure, _REPORT), strict=True))


def check_loads(graph: onnx.ModelProto) -> None:
    """Raise DeployError where ONNX Runtime does not load a graph."""
    open_session(graph.SerializeToString(), hint=_REPORT)
