"""A bundle's engine in TensorRT or TensorRT-RTX, on the GPU of this machine.

An engine is native code, so whether it may be loaded here is found out before it is. TensorRT
itself refuses some of what is refused here, but only while it reads the file.

The calls of TensorRT and cuda-python were checked against the signatures of their own bindings,
not on a GPU yet.
"""

from __future__ import annotations

import importlib
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointrend_deploy.bundle.folder import Bundle, sha256_of
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import GraphEnds
from pointrend_deploy.bundle.records import EngineRecord
from pointrend_deploy.engine.flavour import (
    Flavour,
    Module,
    how_to_install,
    installed,
    prepare_import,
    register_standard_plugins,
)
from pointrend_deploy.engine.machine import check_import
from pointrend_deploy.engine.plugin_library import PluginLibrary, find_library
from pointrend_deploy.engine.targets import check_gpu, first_gpu
from pointrend_deploy.errors import DeployError
from pointrend_deploy.packages import problems
from pointrend_deploy.run.backends.trt_engine import Cuda, LoadedEngine, cuda_runtime
from pointrend_deploy.run.runner import Array, BundleRunner


@dataclass(frozen=True)
class Host:
    """The program and the machine that would load an engine.

    Attributes:
        builder: ``tensorrt`` or ``tensorrt_rtx``.
        version: its ``__version__``.
        capability: compute capability of the GPU, 87 for 8.7; None without one.
        plugin_sha256: SHA-256 of the plugin library that is loaded; None without one.
        platform: system and processor, "Linux aarch64".
    """

    builder: Module
    version: str
    capability: int | None
    plugin_sha256: str | None
    platform: str = f"{platform.system()} {platform.machine()}"


Choose = Callable[[Bundle, Host, Precision | None], str]
"""Names one of a bundle's engines that fit a host. Raises DeployError where it cannot."""


class TrtRunner(BundleRunner):
    """The engine of a bundle that was built for this machine.

    Args:
        bundle: opened.
        engine: name of its folder under ``engines/``; None for one that fits.
        precision: of the engine; None for any.
        choose: names the engine where the caller does not; by default the only one that fits.

    Raises:
        DeployError: TensorRT, a GPU or cuda-python is missing, no engine fits or several do, or
            TensorRT does not accept it.
    """

    name = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        engine: str | None = None,
        precision: Precision | None = None,
        choose: Choose | None = None,
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
        self.engine = engine or (choose or only_fitting)(bundle, host, precision)
        paths = check_engine(bundle, self.engine, host)
        self.precision = bundle.manifest.engines[self.engine].precision
        if precision not in (None, self.precision):
            raise DeployError(
                f"the engine {self.engine} is {self.precision}, not {precision}",
                "leave --precision out, or name another engine",
            )
        needs_library = bundle.manifest.engines[self.engine].ops == "plugin"
        self._logger = runtime_logger(trt)
        self._engines = load_engines(
            trt,
            self._logger,
            library.path if needs_library and library is not None else None,
            paths,
            self.task.graphs(),
        )

    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        return self.task.infer(self._engines, batch)

    def close(self) -> None:
        """Free the GPU's memory; the runner cannot be called any more."""
        for engine in self._engines:
            engine.close()
        self._engines = []


def load_engines(
    trt: Any,
    logger: Any,
    library: Path | None,
    paths: Sequence[Path],
    graphs: Sequence[GraphEnds],
) -> list[LoadedEngine]:
    """Deserialise engines that are known to be of this machine, each with a stream of its own.

    Args:
        trt: the module.
        logger: from :func:`runtime_logger`; must live as long as the engines.
        library: the plugin library; None for engines that need none.
        paths: of the engines, in the order they run.
        graphs: what each takes and gives.

    Raises:
        DeployError: cuda-python is missing, or TensorRT does not accept an engine.
    """
    cuda = cuda_runtime()
    register_standard_plugins(trt, logger)
    if library is not None:
        trt.get_plugin_registry().load_library(str(library))
    runtime = trt.Runtime(logger)
    engines: list[LoadedEngine] = []
    try:
        for path, ends in zip(paths, graphs, strict=True):
            engines.append(LoadedEngine(trt, runtime, path, ends, Cuda(cuda)))
    except DeployError:
        for engine in engines:
            engine.close()
        raise
    return engines


def check_machine(plugins: bool) -> None:
    """Check what this runner needs of the machine, whatever the bundle; `doctor` asks this.

    Args:
        plugins: whether the engine was built with ``--ops plugin``.

    Raises:
        DeployError: TensorRT, a GPU, cuda-python or the plugin library is missing or no good.
    """
    flavour = _builders()[0]
    check_import(flavour.module)
    gpu = first_gpu()
    if gpu is None:
        raise DeployError(
            "this machine has no NVIDIA GPU that its driver shows", "use --runner onnx"
        )
    check_gpu(flavour, gpu)
    cuda_runtime()
    if plugins:
        find_library()


def _builders() -> tuple[Flavour, ...]:
    found = installed()
    if not found:
        raise DeployError(
            "neither TensorRT nor TensorRT-RTX is installed",
            how_to_install("tensorrt")
            + ("" if problems("run --runner onnx") else "; or use --runner onnx"),
        )
    return found


def _imported(bundle: Bundle, links: Path) -> Any:
    """Import the builder whose engines the bundle has; full TensorRT where it has both."""
    modules = [flavour.module for flavour in _builders()]
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


def runtime_logger(trt: Any, line: Callable[[str, str], str] = "tensorrt: {1}".format) -> Any:
    """Make a logger that writes errors and warnings to stderr.

    Args:
        trt: the module.
        line: makes a line of the name of the severity and the message.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                print(line(severity.name, message), file=sys.stderr)

    return Log()


def _build(bundle: Bundle) -> str:
    """Return the command that builds an engine here, as a hint."""
    return f"build it here: pointrend-deploy build {shlex.quote(str(bundle.path))} --target this"


def only_fitting(bundle: Bundle, host: Host, precision: Precision | None = None) -> str:
    """Choose the one engine, of a precision or of any, that fits a host.

    Raises:
        DeployError: no engine fits, with the reason for each; or several do.
    """
    names = fitting(bundle, host, precision)
    if len(names) > 1:
        raise DeployError(
            f"several engines fit this machine: {', '.join(names)}",
            f"name one, such as --engine {names[0]}",
        )
    return names[0]


def fitting(bundle: Bundle, host: Host, precision: Precision | None = None) -> list[str]:
    """Name the engines, of a precision or of any, that fit a host: at least one.

    Raises:
        DeployError: none does, with the reason for each.
    """
    engines = {
        name: record
        for name, record in bundle.manifest.engines.items()
        if precision in (None, record.precision)
    }
    reasons = {name: mismatch(record, host) for name, record in engines.items()}
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        said = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        kind = f"{precision} engine" if precision else "engine"
        raise DeployError(
            f"the bundle {bundle.path} has no {kind} for this machine{': ' if said else ''}{said}",
            _build(bundle) + (f" --precision {precision}" if precision else ""),
        )
    return names


def check_engine(bundle: Bundle, name: str, host: Host) -> tuple[Path, ...]:
    """Check that the engines in one folder of a bundle may be loaded; return their files.

    Args:
        bundle: opened.
        name: of the folder under ``engines/``: rtx-sm86-fp32-plugin.
        host: would load them.

    Returns:
        A path for each graph, in the order they run.

    Raises:
        DeployError: there is no such engine; it was built by another version or for another
            machine; or its graph, its plugin library or its own file has changed since.
    """
    record = bundle.manifest.engines.get(name)
    if record is None:
        have = ", ".join(bundle.manifest.engines) or "none"
        raise DeployError(
            f"the bundle {bundle.path} has no engine {name}, but {have}", _build(bundle)
        )
    if reason := mismatch(record, host):
        raise DeployError(f"the engine {name} {reason}", _build(bundle))
    paths = []
    for engine in record.engines:
        if bundle.manifest.files.get(engine.source) != engine.source_sha256:
            raise DeployError(
                f"the engine {name} was built from another {engine.source} than the bundle's",
                _build(bundle),
            )
        path = bundle.file(engine.file)
        if sha256_of(path) != engine.sha256:  # a writer stopped half-way leaves the old one
            raise DeployError(f"{path} is not the engine that was built as {name}", _build(bundle))
        paths.append(path)
    return tuple(paths)


def mismatch(record: EngineRecord, host: Host) -> str:
    """Say why an engine cannot run on a host, as the end of a sentence; empty where it can."""
    titles = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    built, here = (
        f"{titles[builder]} {version}"
        for builder, version in ((record.builder, record.version), (host.builder, host.version))
    )
    if built != here:
        return f"was built by {built}, and this is {here}"
    if record.platform != host.platform:
        return f"was built on {record.platform}, and this is {host.platform}"
    if record.capability != host.capability:
        this = "there is no GPU here" if host.capability is None else f"this one is of {_dot(host)}"
        return f"is for a GPU of compute capability {record.capability / 10:.1f}; {this}"
    if record.plugin_sha256 is not None and record.plugin_sha256 != host.plugin_sha256:
        if host.plugin_sha256 is None:
            return "needs the plugin library, and none is loaded"
        return "was built with another plugin library than the one that is loaded"
    return ""


def _dot(host: Host) -> str:
    return f"{(host.capability or 0) / 10:.1f}"
