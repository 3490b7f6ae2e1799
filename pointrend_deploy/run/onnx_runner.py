"""A bundle in ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.run.runner import Array, BundleRunner
from pointrend_deploy.run.split import with_masks

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


class OnnxRunner(BundleRunner):
    """The bundle's graph in ONNX Runtime with its default threads and optimisations.

    Custom nodes run by their function bodies, so no plugin library is needed. Of a split layout
    the detector runs first, then the mask graph for each picture, on just what was found in it.

    Raises:
        DeployError: ONNX Runtime is not installed, the graph does not load, or its inputs and
            outputs are not those of the manifest.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        manifest = bundle.manifest
        self._session = _open(bundle, manifest.graphs["fp32"], manifest.inputs, manifest.outputs)
        self._mask_session: Any = None
        export = manifest.instance
        if export is not None and export.layout == "split":
            self._mask_session = _open(
                bundle, export.mask_graphs["fp32"], export.mask_inputs, export.mask_outputs
            )

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
    try:
        import onnxruntime
    except ImportError as error:
        raise DeployError(
            f"ONNX Runtime cannot be imported: {error}",
            "pip install onnxruntime, or use --runner torch",
        ) from error
    graph = bundle.file(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they come back as exceptions as well
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class below this one
        raise DeployError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {graph}: {_first_line(error)}",
            "a newer ONNX Runtime may; otherwise export the bundle again",
        ) from error
    _check("inputs", session.get_inputs(), inputs, str(graph))
    _check("outputs", session.get_outputs(), outputs, str(graph))
    return session


def _run(session: Any, names: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
    try:
        outputs = session.run(list(names), inputs)
    except Exception as error:
        raise DeployError(
            f"ONNX Runtime failed while running the bundle: {_first_line(error)}",
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
