"""Build one engine in a process of its own, and report how that process ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pointrend_deploy.bundle.forms import Ops, Precision
from pointrend_deploy.bundle.records import EngineShape
from pointrend_deploy.engine.dynamic import with_sizes
from pointrend_deploy.engine.graphs import (
    check_plugin_inputs,
    creators_of,
    custom_nodes,
    element_counts,
    in_form,
    input_shapes,
    nodes_of,
    read_graph,
    refuse_ops,
    topk_sizes,
    weighted_nodes,
)
from pointrend_deploy.engine.job import Built, Failed, Job, Message, Phases, Plugin, Profile, decode
from pointrend_deploy.engine.layers import LayerTable, read_layers
from pointrend_deploy.engine.plugin_library import PluginLibrary
from pointrend_deploy.engine.precision_check import check_precision, table_of
from pointrend_deploy.engine.process import ended, last_words, python_path, with_words
from pointrend_deploy.engine.shape import shape_of
from pointrend_deploy.engine.targets import Target
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Progress

if TYPE_CHECKING:
    from onnx import ModelProto

WORKER: Final = (sys.executable, "-m", "pointrend_deploy.engine.worker")
_RTX_INT8: Final = 80
_LESS_MEMORY: Final = (
    "give the builder less: --workspace-mib 512, a bundle of a smaller --size or --batch, or close "
    "other programs (a Jetson's CPU and GPU share one memory)"
)


@dataclass(frozen=True)
class Request:
    """One engine of one graph.

    Attributes:
        graph: the bundle's ONNX file.
        stem: name of the engine without its ending.
        target: builder and GPU.
        precision: fp32, fp16 or int8.
        ops: plugin or native.
        workspace_mib: bound on a layer's scratch memory.
        sizes: smallest, usual and largest value of each dynamic dimension, by its name in the file.
        library: for ``ops`` plugin.
    """

    graph: Path
    stem: str
    target: Target
    precision: Precision
    ops: Ops
    workspace_mib: int
    sizes: dict[str, tuple[int, int, int]]
    library: PluginLibrary | None


@dataclass(frozen=True)
class Engine:
    """A built engine.

    Attributes:
        path: of the engine file.
        version: the builder's own.
        plugins: plugin layers in the parsed network.
        table: its layers.
        timings_reused: whether timings of an earlier build were used.
        shape: its layers and bytes, counted in the table.
    """

    path: Path
    version: str
    plugins: int
    table: LayerTable
    timings_reused: bool
    shape: EngineShape


def build_engine(
    request: Request, folder: Path, progress: Progress, worker: Sequence[str] = WORKER
) -> Engine:
    """Build into a folder: ``<stem>.engine`` beside build.log and, with TensorRT, timing.cache.

    Args:
        request: what to build.
        folder: an existing folder; build.log is appended to.
        progress: is advanced by the builder's own progress, in hundredths.
        worker: the command that builds; tests give another one.

    Raises:
        DeployError: the graph does not suit the builder, the builder refuses or dies, or the
            engine does not compute in the requested precision.
    """
    model = read_graph(request.graph)
    flavour = request.target.flavour
    form = in_form(model, request.ops)
    refuse_ops(form, flavour.unsupported_ops, flavour.title)
    check_plugin_inputs(form)
    weighted = weighted_nodes(form)
    scratch = folder / ".scratch"
    scratch.mkdir(exist_ok=True)
    onnx_file = scratch / f"{request.stem}.onnx"
    onnx_file.write_bytes(form.SerializeToString(deterministic=True))
    standard = sum(
        node.op_type == "RoiAlign" and node.domain in ("", "ai.onnx") for node in nodes_of(form)
    )
    job = Job(
        module=flavour.module,
        capability=None if request.target.gpu else request.target.capability,
        graph=str(onnx_file),
        engine=str(folder / f"{request.stem}.engine"),
        log=str(folder / "build.log"),
        layers=str(scratch / f"{request.stem}.layers"),
        timing_cache=str(folder / "timing.cache"),
        workspace_mib=request.workspace_mib,
        library=str(request.library.path) if request.library else None,
        plugins=tuple(Plugin(c.name, c.version, c.namespace) for c in creators_of(form)),
        custom=tuple(node.name for node in custom_nodes(form)),
        standard_plugins=standard,
        grid_samples=sum(node.op_type == "GridSample" for node in nodes_of(form)),
        topk=topk_sizes(form),
        profiles=tuple(_profiles(input_shapes(form), request)),
    )
    built = run_worker(job, scratch, progress, flavour.title, worker)
    layers = Path(job.layers)
    if not layers.is_file():
        raise DeployError(f"{flavour.title} {built.version} said nothing of the engine's layers")
    table = table_of(read_layers(layers.read_text(encoding="utf-8")), weighted)
    check_precision(table, weighted, _fallback_hint(request.target))
    return Engine(
        path=Path(job.engine),
        version=built.version,
        plugins=built.plugins,
        table=table,
        timings_reused=built.timings_reused,
        shape=_shape(table, form, request),
    )


def _shape(table: LayerTable, form: ModelProto, request: Request) -> EngineShape:
    """Count an engine's layers and bytes, with the largest value of each dynamic dimension."""
    dynamic = {size for shape in input_shapes(form).values() for size in shape}
    sizes = {name: largest for name, (*_, largest) in request.sizes.items() if name in dynamic}
    least = min(sizes.values(), default=1)
    layers = with_sizes(table.layers, element_counts(form, sizes), least)
    return shape_of(layers, {node.name: node.op_type for node in nodes_of(form)}, sizes)


def _fallback_hint(target: Target) -> str:
    """Why convolutions meant for INT8 are not in it, where the target is the reason."""
    if target.flavour.module == "tensorrt_rtx" and target.capability < _RTX_INT8:
        return (
            "TensorRT-RTX has int8 convolutions from compute capability "
            f"{_RTX_INT8 / 10:.1f} on: build --precision fp16 for this GPU"
        )
    return ""


def _profiles(shapes: dict[str, tuple[int | str, ...]], request: Request) -> list[Profile]:
    profiles = []
    for name, shape in shapes.items():
        dynamic = [size for size in shape if isinstance(size, str)]
        if not dynamic:
            continue
        if unknown := [size for size in dynamic if size not in request.sizes]:
            raise DeployError(
                f"{request.graph}: nothing bounds the dimension {unknown[0]} of the input {name}",
                "export the bundle again",
            )
        smallest, usual, largest = (
            tuple(size if isinstance(size, int) else request.sizes[size][row] for size in shape)
            for row in range(3)
        )
        profiles.append(Profile(name, smallest, usual, largest))
    return profiles


def run_worker(
    job: Job, scratch: Path, progress: Progress, title: str, worker: Sequence[str] = WORKER
) -> Built:
    """Run the process that builds an engine, and show the progress it reports.

    Raises:
        DeployError: the process reported an error, died, or ended without an engine.
    """
    described = scratch / "job.json"
    described.write_bytes(msgspec.json.encode(job))
    reader, writer = os.pipe()
    last: Built | Failed | None = None
    with open(job.log, "ab") as log, os.fdopen(reader, "rb") as messages:
        start = log.tell()
        process = subprocess.Popen(
            [*worker, str(described), str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        os.close(writer)
        try:
            with progress.step(f"building {Path(job.engine).name}", 100) as advance:
                phases, shown = Phases(), 0
                for line in messages:
                    message = _decoded(line)
                    if isinstance(message, (Built, Failed)):
                        last = message
                    elif message is not None:
                        now = int(phases.hear(message) * 100)
                        for _ in range(now - shown):
                            advance()
                        shown = max(shown, now)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if isinstance(last, Built) and Path(job.engine).is_file():
        return last
    said = last_words(Path(job.log), start)
    if isinstance(last, Failed):
        raise DeployError(with_words(last.message, said), last.hint or _hint(said))
    raise _died(code, title, said)


def _decoded(line: bytes) -> Message | None:
    try:
        return decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # of a process that died while writing it
        return None


def _died(code: int, title: str, said: list[str]) -> DeployError:
    if code == -signal.SIGKILL:
        killed = f"{title}'s builder was killed, as the system does when memory runs out"
        return DeployError(with_words(killed, said), _LESS_MEMORY)
    if code < 0:
        message = f"{title}'s builder {ended(code)}"
    else:
        message = f"{title}'s builder ended with {code} and no engine"
    return DeployError(with_words(message, said), _hint(said))


def _hint(said: list[str]) -> str:
    if any(word in line.lower() for line in said for word in ("out of memory", "outofmemory")):
        return _LESS_MEMORY
    return "the whole log stands beside the engine's folder; see docs/engine.md"
