"""A bundle in ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.quantize.simulation import first_line, open_session
from pointrend_deploy.run.runner import Array, BundleRunner, Precision
from pointrend_deploy.run.split import with_masks

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
    _check("inputs", session.get_inputs(), inputs, str(graph))
    _check("outputs", session.get_outputs(), outputs, str(graph))
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


def _check(what: str, found: Any, expected: tuple[TensorSpec, ...], graph: str) -> None:
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
