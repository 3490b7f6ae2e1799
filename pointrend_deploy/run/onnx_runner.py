"""A bundle in ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.run.runner import BundleRunner

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


class OnnxRunner(BundleRunner):
    """``model.onnx`` in ONNX Runtime with its default threads and optimisations.

    Custom nodes run by their function bodies, so no plugin library is needed.

    Raises:
        DeployError: ONNX Runtime is not installed, the graph does not load, or its inputs and
            outputs are not those of the manifest.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        try:
            import onnxruntime
        except ImportError as error:
            raise DeployError(
                f"ONNX Runtime cannot be imported: {error}",
                "pip install onnxruntime, or use --runner torch",
            ) from error
        graph = bundle.file(bundle.manifest.graphs["fp32"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; they come back as exceptions as well
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base class below this one
            raise DeployError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {graph}: {_first_line(error)}",
                "a newer ONNX Runtime may; otherwise export the bundle again",
            ) from error
        manifest = bundle.manifest
        _check("inputs", self._session.get_inputs(), manifest.inputs, str(graph))
        _check("outputs", self._session.get_outputs(), manifest.outputs, str(graph))

    def _infer(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        names = list(self.bundle.manifest.output_names)
        try:
            outputs = self._session.run(names, batch)
        except Exception as error:
            raise DeployError(
                f"ONNX Runtime failed while running the bundle: {_first_line(error)}",
                "if memory ran out, use a bundle with a smaller --size or --batch",
            ) from error
        return dict(zip(names, outputs, strict=True))


def _check(what: str, found: Any, expected: tuple[TensorSpec, ...], graph: str) -> None:
    has = [(arg.name, _DTYPES.get(arg.type, arg.type), tuple(arg.shape)) for arg in found]
    wants = [(spec.name, spec.dtype, spec.shape) for spec in expected]
    if has != wants:
        raise DeployError(
            f"the {what} of {graph} are not those of the manifest: {has} where {wants} is expected",
            "export the bundle again",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
