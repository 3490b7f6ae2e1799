"""A bundle's engine in TensorRT or TensorRT-RTX, on the GPU of this machine.

What it calls was checked against the signatures of TensorRT's and cuda-python's own bindings, and
not on a GPU yet.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.engine.flavour import installed, prepare_import
from pointrend_deploy.engine.gpu import first_gpu
from pointrend_deploy.engine.plugin_library import PluginLibrary, find_library
from pointrend_deploy.errors import DeployError
from pointrend_deploy.manifest import TensorSpec
from pointrend_deploy.run.cuda import Array, Cuda, cuda_runtime
from pointrend_deploy.run.engine_check import Host, check_engine, mismatch
from pointrend_deploy.run.loaded_engine import LoadedEngine
from pointrend_deploy.run.runner import BundleRunner, Precision
from pointrend_deploy.run.split import with_masks


class TrtRunner(BundleRunner):
    """The engine of a bundle that belongs on this machine.

    Args:
        bundle: opened.
        engine: name of its folder under ``engines/``; None for the only one that fits.
        precision: only engines of this one fit; None for any.

    Raises:
        DeployError: TensorRT, a GPU or cuda-python is missing, no engine fits or several do, or
            TensorRT does not take it.
    """

    name = "tensorrt"

    def __init__(
        self, bundle: Bundle, engine: str | None = None, precision: Precision | None = None
    ) -> None:
        super().__init__(bundle)
        self._links = tempfile.TemporaryDirectory(prefix="pointrend-")
        trt = _imported(bundle, Path(self._links.name))
        library = _library(bundle)
        gpu = first_gpu()
        host = Host(
            builder=trt.__name__,
            version=trt.__version__,
            capability=gpu.capability if gpu else None,
            plugin_sha256=library.sha256 if library else None,
        )
        self.engine = engine or only_fitting(bundle, host, precision)
        paths = check_engine(bundle, self.engine, host)
        self.precision = bundle.manifest.engines[self.engine].precision
        if precision not in (None, self.precision):
            raise DeployError(
                f"the engine {self.engine} is {self.precision}, not {precision}",
                "leave --precision out, or name another engine",
            )
        cuda = cuda_runtime()
        if bundle.manifest.engines[self.engine].ops == "plugin" and library is not None:
            trt.get_plugin_registry().load_library(str(library.path))
        self._logger = _logger(trt)
        runtime = trt.Runtime(self._logger)
        manifest, export = bundle.manifest, bundle.manifest.instance
        ends: list[tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], int]] = [
            (manifest.inputs, manifest.outputs, 1)
        ]
        if export is not None and export.layout == "split":
            ends.append((export.mask_inputs, export.mask_outputs, export.detections))
        self._engines: list[LoadedEngine] = []
        try:
            for path, end in zip(paths, ends, strict=True):
                self._engines.append(LoadedEngine(trt, runtime, path, *end, Cuda(cuda)))
        except DeployError:
            self.close()
            raise

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        outputs = self._engines[0](batch)
        if len(self._engines) == 1:
            return outputs
        return with_masks(self.bundle.manifest, outputs, lambda r: self._engines[1](r)["masks"])

    def close(self) -> None:
        """Give the GPU's memory back; the runner cannot be used any more."""
        for engine in self._engines:
            engine.close()
        self._engines = []


def only_fitting(bundle: Bundle, host: Host, precision: Precision | None = None) -> str:
    """Name of the one engine, of a precision or of any, that belongs on a host.

    Raises:
        DeployError: none does, with the reason for each; or several.
    """
    engines = {
        name: record
        for name, record in bundle.manifest.engines.items()
        if precision in (None, record.precision)
    }
    reasons = {name: mismatch(record, host) for name, record in engines.items()}
    fitting = [name for name, reason in reasons.items() if not reason]
    if not fitting:
        said = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        kind = f"{precision} engine" if precision else "engine"
        raise DeployError(
            f"the bundle {bundle.path} has no {kind} for this machine{': ' if said else ''}{said}",
            "build it here: pointrend-deploy build BUNDLE --target this"
            + (f" --precision {precision}" if precision else ""),
        )
    if len(fitting) > 1:
        raise DeployError(
            f"several engines fit this machine: {', '.join(fitting)}", "name one: --engine NAME"
        )
    return fitting[0]


def _imported(bundle: Bundle, links: Path) -> Any:
    """The builder's module whose engines the bundle has; full TensorRT where both are."""
    modules = [flavour.module for flavour in installed()]
    if not modules:
        raise DeployError(
            "neither TensorRT nor TensorRT-RTX is installed",
            "on a Jetson: sudo apt install python3-libnvinfer; or use --runner onnx",
        )
    built = {record.builder for record in bundle.manifest.engines.values()}
    module = next((name for name in modules if name in built), modules[0])
    if module not in sys.modules:
        prepare_import(module, links)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DeployError(f"{module} cannot be imported: {error}", "install it again") from error


def _library(bundle: Bundle) -> PluginLibrary | None:
    wanted = any(record.ops == "plugin" for record in bundle.manifest.engines.values())
    return find_library() if wanted else None


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Errors and warnings to stderr."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                print(f"tensorrt: {message}", file=sys.stderr)

    return Log()
