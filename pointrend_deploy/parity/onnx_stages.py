"""The inner stages of a bundle's graphs of every precision, as ONNX Runtime computes them.

The FP32 graph says which values are stages: its nodes are named by module path. The graphs of the
other precisions keep the names of values, so a stage has the same names in them. The stages are the
outputs of a part that is cut out of the graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pointrend_deploy.graph.allowed_ops import WEIGHTED
from pointrend_deploy.graph.slices import cut
from pointrend_deploy.onnx_session import call, open_session

Array = npt.NDArray[Any]
_BLOCK = re.compile(r"(backbone\.(?:[a-z_]+\.)*?(?:stem|blocks\.\d+|res\d+\.\d+))(?:\.|$)")
_NAMED = re.compile(r"p\d+|coarse|step\d+\.(?:indices|point_logits)|logits|mask_logits")
_HEADS = re.compile(
    r"(proposal_generator\.rpn_head\.(?:objectness_logits|anchor_deltas)|"
    r"roi_heads\.box_predictor\.(?:cls_score|bbox_pred))(?:\.|$)"
)
_COARSE = "roi_heads.mask_head.coarse_head.prediction"


@dataclass(frozen=True)
class Tap:
    """A stage: its name in reports, and the names of the graph's values it consists of."""

    stage: str
    values: tuple[str, ...]


def taps(graph: onnx.GraphProto) -> tuple[Tap, ...]:
    """Find the stages of an FP32 graph, in network order.

    These are the output of every residual block of the backbone, the levels of the pyramid, coarse
    logits, points and their logits by subdivision step, and final logits where the graph computes
    them; in an instance graph also the outputs of the RPN's and the box head's predictors.
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
    """Find points and logits of the mask head's steps where the graph gives them other names.

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
    """Find the name of the node that scattered into the grid this step refines; empty if none."""
    before = makers.get(node.input[0])
    while before is not None and not _scatters(before):
        before = makers.get(before.input[0]) if before.input else None
    return "" if before is None else before.name


class TappedGraph:
    """A graph in ONNX Runtime whose stages are among its outputs.

    Args:
        path: of the graph.
        wanted: stages to give; those with values this graph does not compute are left out.
        given: dtypes of values that become inputs ``given.<name>``. Nodes that compute nothing
            wanted are left out.
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
        part = cut(model, self._values)
        del model
        self.inputs = tuple(value.name for value in part.graph.input)
        raw = part.SerializeToString()
        del part
        self._session = open_session(raw)

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[dict[str, list[Array]], list[Array]]:
        """Compute the values of each stage, and those of ``also``.

        Args:
            inputs: by name; those the graph does not read are left out.

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
    """The stages of a semantic bundle's graph; see ``parity.semantic.columns.Stages``."""

    def __init__(self, path: Path, wanted: Sequence[Tap]) -> None:
        self._graph = TappedGraph(path, wanted)

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Compute the stages by name, in network order, (N, ...) each."""
        stages, _ = self._graph(inputs)
        return {name: values[0] for name, values in stages.items()}


def read_graph(path: Path) -> onnx.GraphProto:
    """Read a graph without its weights, which is enough to find its stages."""
    model = onnx.load(str(path))
    model.graph.ClearField("initializer")
    return model.graph


def _feed(model: onnx.ModelProto, given: Mapping[str, npt.DTypeLike]) -> None:
    """Let nodes that read ``x`` read a new input ``given.x`` instead; ``x`` is still computed."""
    for name, dtype in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        fed = onnx.helper.make_tensor_value_info(f"given.{name}", kind, None)
        model.graph.input.append(fed)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in given:
                node.input[place] = f"given.{name}"
