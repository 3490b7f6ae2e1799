"""The process that builds one engine: ``python -m pointrend_deploy.engine.worker JOB DESCRIPTOR``.

NVIDIA's builders end the process on some errors, so no other process calls them. JOB is a file with
an engine.job.Job; messages go to DESCRIPTOR, one JSON line each; whatever the builder prints goes
to the log. A parser that changes a graph does not say so: the parsed network is checked layer by
layer before it is built.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from pointrend_deploy.engine import flavour as differences
from pointrend_deploy.engine.job import (
    Built,
    Failed,
    Job,
    Message,
    PhaseFinished,
    PhaseStarted,
    StepDone,
)
from pointrend_deploy.engine.layers import LAYERS_BEGIN
from pointrend_deploy.errors import DeployError

Tell = Callable[[Message], None]


def main() -> None:
    """Do the job named on the command line, then exit without the builder's teardown."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    out = os.fdopen(int(sys.argv[2]), "wb", buffering=0)

    def tell(message: Message) -> None:
        out.write(msgspec.json.encode(message) + b"\n")

    run(job, tell)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without a GPU TensorRT-RTX may not come to an end


def run(job: Job, tell: Tell) -> None:
    """Import the builder and build; every error becomes a message."""
    with tempfile.TemporaryDirectory() as links:
        keep = differences.prepare_import(job.module, Path(links))
        try:
            trt = importlib.import_module(job.module)
            build(trt, job, tell)
        except DeployError as error:
            tell(Failed(error.message, error.hint))
        except ImportError as error:
            tell(Failed(f"{job.module} cannot be imported: {error}", "install it again"))
        del keep


def build(trt: Any, job: Job, tell: Tell) -> None:
    """Parse, check and build; write the engine and its layers.

    Raises:
        DeployError: the builder refuses, or made something else of the graph.
    """
    with open(job.log, "a", encoding="utf-8", buffering=1) as log:
        logger = _logger(trt, log, Path(job.layers))
        title = "TensorRT-RTX" if job.module == "tensorrt_rtx" else "TensorRT"
        title = f"{title} {trt.__version__}"
        differences.register_standard_plugins(trt, logger)
        if job.library is not None:
            trt.get_plugin_registry().load_library(job.library)
        check_creators(trt, job)
        builder = trt.Builder(logger)
        network = builder.create_network(differences.network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse_from_file(job.graph)
        check_parsed(parser, parsed, title)
        plugins = check_network(trt, network, job)
        config = builder.create_builder_config()
        differences.configure(trt, config, job.workspace_mib, job.capability)
        _add_profiles(builder, config, job)
        reused = _take_timings(trt, config, job)
        config.progress_monitor = _monitor(trt, tell)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise DeployError(f"{title} built no engine", "")
        data = memoryview(engine)
        with open(job.engine, "wb") as file:
            file.write(data)
        if differences.has_timing_cache(trt):
            Path(job.timing_cache).write_bytes(differences.timing_cache(config))
            shapes = {bounds.name: bounds.largest for bounds in job.profiles}
            text = differences.layers_from_engine(trt, logger, bytes(data), shapes)
            Path(job.layers).write_text(text, encoding="utf-8")
        tell(Built(trt.__version__, plugins, reused))


def _add_profiles(builder: Any, config: Any, job: Job) -> None:
    if not job.profiles:
        return
    profile = builder.create_optimization_profile()
    for bounds in job.profiles:
        profile.set_shape(bounds.name, bounds.smallest, bounds.usual, bounds.largest)
    if config.add_optimization_profile(profile) < 0:
        raise DeployError(f"the builder does not take the bounds {list(job.profiles)}")


def _take_timings(trt: Any, config: Any, job: Job) -> bool:
    if not differences.has_timing_cache(trt):
        return False
    path = Path(job.timing_cache)
    return differences.load_timing_cache(trt, config, path.read_bytes() if path.is_file() else b"")


def _logger(trt: Any, log: TextIO, layers: Path) -> Any:
    """Make a logger that writes errors, warnings and notes to the log, and the layers to a file."""
    letters = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I"}

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = str(getattr(severity, "name", severity))
            if message.startswith(LAYERS_BEGIN):
                layers.write_text(message, encoding="utf-8")
            elif name in letters:
                log.write(f"[{letters[name]}] {message}\n")

    return Log()


def _monitor(trt: Any, tell: Tell) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tell(PhaseStarted(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(StepDone(phase_name, step))
            return True

        def phase_finish(self, phase_name: str) -> None:
            tell(PhaseFinished(phase_name))

    return Monitor()


def check_creators(trt: Any, job: Job) -> None:
    """Check that every plugin the graph needs is registered.

    Raises:
        DeployError: plugins are missing; the message names them.
    """
    known = {
        (creator.name, creator.plugin_version, creator.plugin_namespace)
        for creator in trt.get_plugin_registry().all_creators
    }
    missing = [p.name for p in job.plugins if (p.name, p.version, p.namespace) not in known]
    if missing:
        raise DeployError(
            f"the plugin library {job.library} gives {trt.__name__} no {' and no '.join(missing)}",
            "it is older than the bundle, or does not load: build it again with "
            "scripts/build_plugins.sh",
        )


def check_parsed(parser: Any, parsed: bool, builder: str) -> None:
    """Check that the parser took the whole graph.

    Raises:
        DeployError: it did not; the message has its errors, node by node.
    """
    if parsed and parser.num_errors == 0:
        return
    said = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        said.append(f"{where}{' '.join(error.desc().split())}")
    raise DeployError(
        f"{builder} does not take the graph: {'; '.join(said[:3]) or 'it does not say why'}",
        "export the bundle again; a bundle of an exporter other than this one may not build",
    )


def check_network(trt: Any, network: Any, job: Job) -> int:
    """Check that the parsed network is the graph in the file.

    Returns:
        The number of plugin layers.

    Raises:
        DeployError: a custom node is no plugin, a plugin is one too many, a sampler is not
            bilinear, a TopK has another size, or coordinates or scores are not FP32.
    """
    layers = list(_layers(network))
    plugins = [layer for layer in layers if layer.type.name.startswith("PLUGIN")]
    pairs = len(job.custom) + job.standard_plugins
    if len(plugins) != pairs:
        raise DeployError(
            f"{len(plugins)} layers of the parsed network are plugins where {pairs} are expected",
            "a function body or a standard op was taken in place of a plugin, or the reverse",
        )
    names = {_node_name(layer) for layer in plugins}
    if lost := [name for name in job.custom if name not in names]:
        raise DeployError(f"node {lost[0]} did not become a plugin layer")
    samplers = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
    if len(samplers) != job.grid_samples:
        raise DeployError(
            f"{len(samplers)} sampling layers where the graph has {job.grid_samples} GridSample"
        )
    for layer in samplers:
        layer.__class__ = trt.IGridSampleLayer
        if layer.interpolation_mode != trt.InterpolationMode.LINEAR:
            raise DeployError(
                f"{layer.name} samples with {layer.interpolation_mode.name}, not bilinearly",
                "build with --ops plugin, whose sampler does not depend on the parser",
            )
        for index in range(2):  # both of one type, and coordinates in FP16 are pixels wrong
            _check_float32(trt, layer, index, "samples")
    for layer in layers:
        if layer.type == trt.LayerType.TOPK:
            _check_topk(trt, layer, job)
    return len(plugins)


def _check_topk(trt: Any, layer: Any, job: Job) -> None:
    wanted = job.topk.get(_node_name(layer))
    if wanted is None:  # an ArgMax
        return
    _check_float32(trt, layer, 0, "selects")
    layer.__class__ = trt.ITopKLayer
    axis = layer.axes.bit_length() - 1
    found = tuple(layer.get_output(0).shape)[axis]
    if found not in (wanted, -1):
        raise DeployError(f"{layer.name} selects {found} where the graph selects {wanted}")


def _check_float32(trt: Any, layer: Any, index: int, verb: str) -> None:
    found = layer.get_input(index).dtype
    if found != trt.DataType.FLOAT:
        raise DeployError(
            f"{layer.name} {verb} by {found.name} values, where FP32 alone is exact enough",
            "quantize the bundle again",
        )


def _layers(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        yield network.get_layer(index)


def _node_name(layer: Any) -> str:
    """The ONNX node a layer came from."""
    found = re.search(r"\[ONNX Layer: ([^\]]*)\]", str(layer.metadata))
    return found[1] if found else str(layer.name)


if __name__ == "__main__":
    main()
