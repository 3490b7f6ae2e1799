"""A bundle in ONNX Runtime, on the CPU.

MERGED: Graphs that no bundle vouches for yet, run as a bundle's own would be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import TensorSpec
from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.onnx_session import first_line, open_session
from pointrend_deploy.run.instance.instances import with_masks
from pointrend_deploy.run.runner import Array, BundleRunner, Precision

if TYPE_CHECKING:
    from onnx import ModelProto


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


class OnnxRunner(BundleRunner):
    """One of the bundle's graphs in ONNX Runtime with its default threads and optimisations.

    Graphs of fp16 and int8 are computed with their rounding but not at their speed: a CPU has no
    kernels for most of them.

    Custom nodes run by their function bodies, so no plugin library is needed. Of a split layout
    the detector runs first, then the mask graph for each picture, on just what was found in it.

    Args:
        bundle: opened.
        precision: of the graph.

    Raises:
        DeployError: ONNX Runtime is not installed, the bundle has no graph of that precision, it
            does not load, or its inputs and outputs are not those of the manifest.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, precision: Precision = "fp32") -> None:
        super().__init__(bundle)
        self.precision = precision
        manifest = bundle.manifest
        graph, *masks = manifest.graphs_of(precision)
        self._session = _open(bundle, graph, manifest.inputs, manifest.outputs)
        self._mask_session: Any = None
        export = manifest.instance
        if export is not None and masks:
            self._mask_session = _open(bundle, masks[0], export.mask_inputs, export.mask_outputs)

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        manifest = self.bundle.manifest
        outputs = _run(self._session, manifest.output_names, batch)
        if self._mask_session is None:
            return outputs
        return with_masks(manifest, outputs, self._masks)

    def _masks(self, inputs: dict[str, Array]) -> Array:
        return _run(self._mask_session, ("masks",), inputs)["masks"]


def _open(
    bundle: Bundle, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> Any:
    """A session of one of the bundle's graphs whose inputs and outputs are the expected ones."""
    graph = bundle.file(name)
    session = open_session(graph)
    _check_declared("inputs", session.get_inputs(), inputs, str(graph))
    _check_declared("outputs", session.get_outputs(), outputs, str(graph))
    return session


def _run(session: Any, names: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
    try:
        outputs = session.run(list(names), inputs)
    except Exception as error:
        raise DeployError(
            f"ONNX Runtime failed while running the bundle: {first_line(error)}",
            "if memory ran out, use a bundle with a smaller --size or --batch",
        ) from error
    return dict(zip(names, outputs, strict=True))


def _check_declared(what: str, found: Any, expected: tuple[TensorSpec, ...], graph: str) -> None:
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
            f"the {what} of {graph} are not those of the manifest: {has} where {wants} is expected",
            "export the bundle again",
        )


class InMemoryRunner(BundleRunner):
    """Graphs with a bundle's inputs and outputs in ONNX Runtime.

    Args:
        bundle: opened.
        graphs: by the file of the FP32 graph each stands for; unchanged when this returns.
        stages: names of values of the first graph that are kept besides.
        precision: of the graphs; their outputs are checked where it is not fp32.

    Attributes:
        stage_names: as given.
        stages: of every call, what ``stages`` asked for.

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
    ) -> None:
        super().__init__(bundle)
        self.precision = precision
        self.stage_names = tuple(stages)
        self.stages: list[dict[str, Array]] = []
        first, *masks = bundle.manifest.graphs_of("fp32")
        self._sessions = [open_session(_with_outputs(graphs[first], stages))]
        self._sessions += [open_session(graphs[name].SerializeToString()) for name in masks]

    def close(self) -> None:
        """Let go of the sessions and their memory; no call after it."""
        self._sessions.clear()

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        manifest = self.bundle.manifest
        outputs = self._run(0, manifest.outputs, batch, self.stage_names)
        self.stages.append({name: outputs[name] for name in self.stage_names})
        outputs = {name: outputs[name] for name in manifest.output_names}
        if len(self._sessions) == 1:
            return outputs
        _, export = manifest.instances

        def masks(inputs: dict[str, Array]) -> Array:
            return self._run(1, export.mask_outputs, inputs)["masks"]

        return with_masks(manifest, outputs, masks)

    def _run(
        self,
        graph: int,
        specs: Sequence[TensorSpec],
        inputs: dict[str, Array],
        stages: Sequence[str] = (),
    ) -> dict[str, Array]:
        names = list(dict.fromkeys([*(spec.name for spec in specs), *stages]))
        try:
            outputs = dict(zip(names, self._sessions[graph].run(names, inputs), strict=True))
        except Exception as error:  # its errors share no base class below this one
            raise DeployError(
                f"ONNX Runtime {version('onnxruntime')} does not run the {self.precision} graph: "
                f"{first_line(error)}",
                "if memory ran out, use a bundle with a smaller --size or --batch",
            ) from error
        if self.precision != "fp32":
            for spec in specs:
                _check_output(spec, outputs[spec.name], self.precision)
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
            "an activation is beyond FP16's range: leave layers in FP32 with --keep-fp32",
        )
