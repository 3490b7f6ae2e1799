"""A bundle in ONNX Runtime, on the CPU: its own graphs, or graphs in memory in their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import GraphEnds, TensorSpec
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.onnx_session import call, open_session, runtime_version
from pointrend_deploy.run.runner import Array, BundleRunner
from pointrend_deploy.run.writer import GraphCall

if TYPE_CHECKING:
    from onnx import ModelProto


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


class OnnxRunner(BundleRunner):
    """The bundle's graphs of one precision, with ONNX Runtime's default threads.

    Graphs of fp16 and int8 are computed with their rounding but not at their speed: a CPU has no
    kernels for most of them. Custom nodes run by their function bodies, so no plugin library is
    needed.

    Args:
        bundle: opened.
        precision: of the graphs.

    Attributes:
        calls: a call for each graph, in the order they run.

    Raises:
        DeployError: ONNX Runtime is not installed, the bundle has no graph of that precision, a
            graph does not load, or its inputs and outputs are not those of the manifest.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, precision: Precision = "fp32") -> None:
        super().__init__(bundle)
        self.precision = precision
        files = bundle.graphs_of(precision)
        self.calls: list[GraphCall] = [
            _Graph(bundle.file(file), ends)
            for file, ends in zip(files, self.task.graphs(), strict=True)
        ]

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        return self.task.infer(self.calls, batch)


class _Graph:
    """One of the bundle's graphs, loaded; its inputs and outputs are the expected ones."""

    def __init__(self, path: Path, ends: GraphEnds) -> None:
        self._session = open_session(path)
        self._outputs = [spec.name for spec in ends.outputs]
        _check_declared("inputs", self._session.get_inputs(), ends.inputs, path)
        _check_declared("outputs", self._session.get_outputs(), ends.outputs, path)

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, call(self._session, self._outputs, inputs), strict=True))


def _check_declared(kind: str, found: Any, expected: tuple[TensorSpec, ...], graph: Path) -> None:
    has = [
        (
            arg.name,
            _DTYPES.get(arg.type, arg.type),
            tuple(-1 if size == "R" else size for size in arg.shape),
        )
        for arg in found
    ]
    wants = [(spec.name, spec.dtype, spec.shape) for spec in expected]
    if has != wants:
        raise DeployError(
            f"the {kind} of {graph} are not those of the manifest: {has} where {wants} is expected",
            "export the bundle again",
        )


class InMemoryRunner(BundleRunner):
    """Graphs in memory, with the inputs and outputs of a bundle's own graphs.

    Args:
        bundle: opened.
        graphs: each by the file name of the FP32 graph whose place it takes; not changed.
        stages: names of values of the first graph that are kept at every call.
        precision: of the graphs; their outputs are checked where it is not fp32.
        further: by file name, names of further values of a graph that are given to ``seen``.
        seen: called after each call of a graph, with its file name and all that was computed.

    Attributes:
        stage_names: as given.
        stages: the kept values by name, one dict a call.

    Raises:
        DeployError: ONNX Runtime does not load a graph.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        graphs: Mapping[str, ModelProto],
        stages: Collection[str] = (),
        precision: Precision = "fp32",
        further: Mapping[str, Collection[str]] | None = None,
        seen: Callable[[str, Mapping[str, Array]], None] | None = None,
    ) -> None:
        super().__init__(bundle)
        self.precision = precision
        self.stage_names = tuple(stages)
        self.stages: list[dict[str, Array]] = []
        self._files = bundle.graphs_of("fp32")
        self._seen = seen
        self._wanted = {file: tuple((further or {}).get(file, ())) for file in self._files}
        first = self._files[0]
        self._wanted[first] = (*self.stage_names, *self._wanted[first])
        self._sessions = [
            open_session(_with_outputs(graphs[file], self._wanted[file])) for file in self._files
        ]

    def close(self) -> None:
        """Free the sessions and their memory; the runner cannot be called any more."""
        self._sessions.clear()

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        first, *further = zip(self._files, self._sessions, self.task.graphs(), strict=True)

        def with_stages(inputs: dict[str, Array]) -> dict[str, Array]:
            outputs = self._run(*first, inputs)
            self.stages.append({name: outputs[name] for name in self.stage_names})
            return {spec.name: outputs[spec.name] for spec in first[2].outputs}

        calls: list[GraphCall] = [with_stages, *(partial(self._run, *each) for each in further)]
        return self.task.infer(calls, batch)

    def _run(
        self, file: str, session: Any, ends: GraphEnds, inputs: dict[str, Array]
    ) -> dict[str, Array]:
        own = [spec.name for spec in ends.outputs]
        names = list(dict.fromkeys([*own, *self._wanted[file]]))
        runtime = f"ONNX Runtime {runtime_version()}"
        failure = f"{runtime} does not run the {self.precision} graph"
        outputs = dict(zip(names, call(session, names, inputs, failure), strict=True))
        if self.precision != "fp32":
            for spec in ends.outputs:
                _check_output(spec, outputs[spec.name], self.precision)
        if self._seen is not None:
            self._seen(file, outputs)
        return outputs


def _with_outputs(graph: ModelProto, names: Collection[str]) -> bytes:
    """Serialise a graph with further values as outputs; the graph itself stays as it is."""
    from pointrend_deploy.graph.slices import with_outputs  # needs onnx, as graphs in memory do

    raw, _ = with_outputs(graph, names)
    return raw


def _check_output(spec: TensorSpec, found: Array, precision: Precision) -> None:
    sizes = zip(found.shape, spec.shape, strict=False)
    alike = len(found.shape) == len(spec.shape) and all(a == b or b == -1 for a, b in sizes)
    if not alike or str(found.dtype) != spec.dtype:
        raise ParityError(
            f"output {spec.name} of the {precision} graph is {found.dtype} {list(found.shape)}, "
            f"not {spec.dtype} {list(spec.shape)}",
            "please report this with the bundle's recipe",
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ParityError(
            f"output {spec.name} of the {precision} graph is not finite everywhere",
            "layers can be kept in FP32 with --keep-fp32 PATTERN; otherwise deploy FP32",
        )
