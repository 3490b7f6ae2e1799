"""The process that builds one engine: ``python -m pointrend_deploy.engine.worker JOB DESCRIPTOR``.

NVIDIA's builders end the process on some errors, so no other process calls them. JOB is a file with
an engine.job.Job; messages go to DESCRIPTOR, one JSON line each; what is printed goes to the log.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
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
from pointrend_deploy.engine.network_checks import check_creators, check_network, check_parsed
from pointrend_deploy.errors import DeployError

Tell = Callable[[Message], None]


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
    """A logger that keeps what is worth reading, and the table of layers apart from it."""
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


def main() -> None:
    """Do the job named on the command line and leave without the builder's teardown."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    out = os.fdopen(int(sys.argv[2]), "wb", buffering=0)

    def tell(message: Message) -> None:
        out.write(msgspec.json.encode(message) + b"\n")

    run(job, tell)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without a GPU TensorRT-RTX may not come to an end


if __name__ == "__main__":
    main()
