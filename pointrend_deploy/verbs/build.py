"""`build`: engines of a bundle's graphs, each checked and in a folder of its own."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import ENGINES, Bundle, sha256_of
from pointrend_deploy.bundle.forms import Ops, Precision
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import EngineFile, EngineRecord
from pointrend_deploy.engine.build import Engine, Request, build_engine
from pointrend_deploy.engine.graphs import custom_nodes, read_graph, weighted_nodes
from pointrend_deploy.engine.layers import encode_tables
from pointrend_deploy.engine.machine import check_machine, library_to_explain, target_to_explain
from pointrend_deploy.engine.plugin_library import note_on
from pointrend_deploy.engine.precision_check import NAMES, check_record
from pointrend_deploy.engine.shape import in_short
from pointrend_deploy.engine.trtexec import command_lines
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.quantize.values import weighted_names
from pointrend_deploy.verbs.engine_check import Checked, Expected, check_engines, expected_answers

LAYERS = "layers.json"
LOG = "build.log"
TIMINGS = "timing.cache"


@dataclass(frozen=True)
class BuildOptions:
    """Choices of a build, made at the command line.

    Attributes:
        precision: which of the bundle's graphs to build.
        ops: ``plugin`` or ``native``; None for plugin where the graphs have custom nodes.
        target: ``this`` or ``rtx:86,89,120``.
        workspace_mib: bound on a layer's scratch memory.
        verify_on: with target ``this``, a picture or a folder of pictures that the engine runs on
            before it is recorded; None for generated ones.
    """

    precision: Precision = "fp32"
    ops: Ops | None = None
    target: str = "this"
    workspace_mib: int = 1024
    verify_on: str | Path | None = None


@dataclass(frozen=True)
class BuiltTarget:
    """A target whose engines are built and listed.

    Attributes:
        name: of the folder under ``engines/``.
        record: as the manifest has it.
        engines: as they were built.
        seconds: that this took.
        checked: how they answered on this machine's GPU; None where it is not the target.
    """

    name: str
    record: EngineRecord
    engines: tuple[Engine, ...]
    seconds: float
    checked: Checked | None = None


@dataclass(frozen=True)
class BuildResult:
    """The bundle with its new engines."""

    bundle: Bundle
    built: tuple[BuiltTarget, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Return lines for the terminal, a paragraph a target."""
        lines: list[str] = []
        for one in self.built:
            record = one.record
            title = "TensorRT" if record.builder == "tensorrt" else "TensorRT-RTX"
            lines.append(f"engine      {self.bundle.path / ENGINES / one.name}")
            lines.append(
                f"builder     {title} {record.version}, for {record.gpu or 'a GPU not here'} "
                f"(compute capability {record.capability / 10:.1f}), {one.seconds:.1f} s"
            )
            for file, engine in zip(record.engines, one.engines, strict=True):
                mib = file.size / 2**20
                lines.append(f"  {engine.path.name}  {mib:.1f} MiB, {_said(engine)}")
                lines.append(f"    {in_short(engine.shape)}")
            lines += _run_lines(one.checked)
            lines += _beside(self.bundle.manifest, record)
        lines += [f"note        {note}" for note in self.notes]
        return "\n".join(lines)


def _said(engine: Engine) -> str:
    types = Counter(engine.table.weighted.values())
    weighted = ", ".join(f"{types[name]} in {name}" for name in NAMES.values() if name in types)
    return f"products: {weighted}"


def _run_lines(checked: Checked | None) -> list[str]:
    if checked is None:
        return ["checked     built, not run: the GPU it is for is not here"]
    note = [f"note        {checked.note}"] if checked.note else []
    return [f"checked     {checked.line}", *note]


def _beside(manifest: Manifest, record: EngineRecord) -> list[str]:
    """A line with the sizes of this target's engines in every precision, where there are two."""
    sizes = {
        other.precision: sum(engine.size for engine in other.engines)
        for other in manifest.engines.values()
        if _target(other) == _target(record)
    }
    listed = [f"{name} {sizes[name] / 2**20:.1f} MiB" for name in NAMES if name in sizes]
    return [f"precisions  {', '.join(listed)}"] if len(listed) > 1 else []


def _target(record: EngineRecord) -> tuple[str, str, int, str]:
    return record.builder, record.platform, record.capability, record.ops


def build_bundle(
    path: str | Path, options: BuildOptions, progress: Progress | None = None
) -> BuildResult:
    """Build a bundle's engines, one target after another.

    Args:
        path: the bundle.
        options: see :class:`BuildOptions`.
        progress: is shown each step.

    Returns:
        The bundle; its manifest lists every engine. A target that fails leaves those before it.

    An engine for this machine's GPU runs once and is held against its graph in ONNX Runtime before
    it is listed.

    Raises:
        UsageError: a choice that makes no sense.
        DeployError: a graph, a builder or a library is missing or refuses, see engine.build; or
            this machine's GPU refuses an engine.
        ParityError: an engine ran here and answers otherwise than its graph.
    """
    progress = progress or Silent()
    bundle, ops = _prepared(path, options)
    targets, library = check_machine(options.target, ops)
    here = any(target.gpu is not None for target in targets)
    if options.verify_on is not None and not here:
        raise UsageError(
            "--verify-images: engines for a GPU that is not here are not run", "leave it out"
        )
    sources = bundle.graphs_of(options.precision)
    sizes = dynamic_sizes(bundle.manifest)
    if options.precision != "fp32":
        _check_record(bundle, options.precision)
    expected = None
    if here:
        expected = expected_answers(bundle, options.precision, options.verify_on, progress)
    built = []
    for target in targets:
        requests = [
            Request(
                bundle.file(source),
                source.split(".")[0],
                target,
                options.precision,
                ops,
                options.workspace_mib,
                sizes,
                library,
            )
            for source in sources
        ]
        bundle, one = _build_target(bundle, requests, expected, progress)
        built.append(one)
    notes = {note_on(library, t.flavour.module, t.flavour.version) for t in targets if library}
    return BuildResult(bundle, tuple(built), tuple(sorted(notes - {""})))


def _check_record(bundle: Bundle, precision: Precision) -> None:
    weighted: dict[str, str] = {}
    for source in bundle.graphs_of(precision):
        graph = read_graph(bundle.file(source))
        types = weighted_nodes(graph)
        weighted |= {name: types[name] for name in weighted_names(graph)}
    check_record(bundle.manifest.quantized.get(precision), weighted, precision)


def explain(path: str | Path, options: BuildOptions) -> str:
    """Return the command lines of NVIDIA's own tool that build the same engines. Builds nothing.

    Needs no GPU, no TensorRT and no plugin library: the commands may be run on another machine.
    """
    bundle, ops = _prepared(path, options)
    library, note = library_to_explain() if ops == "plugin" else (None, "")
    sizes = dynamic_sizes(bundle.manifest)
    lines = [note] if note else []
    for target in target_to_explain(options.target):
        for source in bundle.graphs_of(options.precision):
            graph = bundle.file(source)
            lines += command_lines(graph, target, ops, options.workspace_mib, sizes, library)
    return "\n".join(dict.fromkeys(lines))


def _prepared(path: str | Path, options: BuildOptions) -> tuple[Bundle, Ops]:
    if options.workspace_mib < 1:
        raise UsageError(f"--workspace-mib {options.workspace_mib} is out of range", "use 1024")
    bundle = Bundle.open(path)
    ops = options.ops or _own_ops(bundle, options.precision)
    if ops == "plugin" and bundle.manifest.ops == "native":
        raise DeployError(
            f"{bundle.path} was exported with --ops native: it has no custom node for a plugin",
            "build with --ops native, or export again with --ops plugin",
        )
    bundle.graphs_of(options.precision)
    return bundle, ops


def _own_ops(bundle: Bundle, precision: Precision) -> Ops:
    """The form to build where the user names none: plugin where a graph has a custom node."""
    if bundle.manifest.ops == "native":
        return "native"
    graphs = (bundle.file(source) for source in bundle.graphs_of(precision))
    return "plugin" if any(custom_nodes(read_graph(graph)) for graph in graphs) else "native"


def dynamic_sizes(manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Smallest, usual and largest value of each dynamic dimension of a bundle's graphs.

    R, the RoIs of ``masks.onnx``, goes from one to the most that are detected.
    """
    if manifest.instance is None:
        return {}
    most = manifest.instance.detections
    return {"R": (1, most, most)}


def _build_target(
    bundle: Bundle, requests: list[Request], expected: Expected | None, progress: Progress
) -> tuple[Bundle, BuiltTarget]:
    started = time.perf_counter()
    request = requests[0]
    target, library = request.target, request.library
    name = target.folder(request.precision, request.ops)
    place = bundle.path / ENGINES / name
    failed_log = place.with_name(f"{name}.failed.log")
    folder = atomic.partial_name(place)
    try:
        folder.mkdir(parents=True)
        earlier = place / TIMINGS
        if earlier.is_file():
            (folder / TIMINGS).write_bytes(earlier.read_bytes())
        try:
            engines = tuple(build_engine(one, folder, progress) for one in requests)
            checked = None
            if expected is not None:
                paths = [engine.path for engine in engines]
                plugins = library.path if library else None
                flavour, log = target.flavour, folder / LOG
                checked = check_engines(expected, paths, flavour, plugins, log, progress)
        except DeployError:
            if (folder / LOG).is_file():
                (folder / LOG).replace(failed_log)
            raise
        atomic.remove(folder / ".scratch")
        (folder / LAYERS).write_bytes(encode_tables({e.path.name: e.table for e in engines}))
        keeps_timings = (folder / TIMINGS).is_file()
        reused = any(engine.timings_reused for engine in engines)
        record = EngineRecord(
            builder=target.flavour.module,
            version=engines[0].version,
            platform=f"{platform.system()} {platform.machine()}",
            capability=target.capability,
            gpu=target.gpu.name if target.gpu else None,
            precision=request.precision,
            ops=request.ops,
            workspace_mib=request.workspace_mib,
            plugin_sha256=library.sha256 if library else None,
            plugin_tensorrt=library.tensorrt if library else None,
            timing_cache=("reused" if reused else "new") if keeps_timings else None,
            engines=tuple(
                EngineFile(
                    file=f"{ENGINES}/{name}/{engine.path.name}",
                    sha256=sha256_of(engine.path),
                    source=one.graph.name,
                    source_sha256=sha256_of(one.graph),
                    size=engine.path.stat().st_size,
                    shape=engine.shape,
                )
                for one, engine in zip(requests, engines, strict=True)
            ),
            ran=checked.record if checked else None,
        )
        bundle = bundle.add_engine(name, record, folder)
    finally:
        atomic.remove(folder)
        with contextlib.suppress(OSError):  # other engines, or the log of a failed build, are in it
            folder.parent.rmdir()
    failed_log.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    return bundle, BuiltTarget(name, record, engines, seconds, checked)
