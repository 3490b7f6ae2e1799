"""The messages between this process and the one that builds: the job, its progress, its outcome."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pointrend_deploy.engine.flavour import Module


class Profile(msgspec.Struct, frozen=True):
    """Bounds of one input with a dynamic dimension: smallest, usual and largest shape."""

    name: str
    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


class Plugin(msgspec.Struct, frozen=True):
    """A creator that must be registered once the library is loaded."""

    name: str
    version: str
    namespace: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One engine to build. Paths are absolute.

    Attributes:
        module: the builder.
        capability: compute capability; None for the GPU at hand.
        graph: ONNX file, in the form the builder is to parse.
        engine, log, layers, timing_cache: where to write; ``timing_cache`` is read first if there.
        workspace_mib: bound on a layer's scratch memory.
        library: plugin library, None for standard ops only.
        plugins: creators the graph needs.
        custom: names of the nodes that must become plugins.
        standard_plugins: how many further plugin layers standard ops may become.
        grid_samples: number of GridSample nodes.
        topk: k of each TopK node, by name.
        profiles: of the inputs with a dynamic dimension.
    """

    module: Module
    capability: int | None
    graph: str
    engine: str
    log: str
    layers: str
    timing_cache: str
    workspace_mib: int
    library: str | None = None
    plugins: tuple[Plugin, ...] = ()
    custom: tuple[str, ...] = ()
    standard_plugins: int = 0
    grid_samples: int = 0
    topk: dict[str, int] = {}
    profiles: tuple[Profile, ...] = ()


class PhaseStarted(msgspec.Struct, frozen=True, tag="phase"):
    """The builder begins a phase of ``steps`` parts inside another."""

    name: str
    parent: str | None
    steps: int


class StepDone(msgspec.Struct, frozen=True, tag="step"):
    """Part ``index`` (from 0) of a phase is done."""

    name: str
    index: int


class PhaseFinished(msgspec.Struct, frozen=True, tag="finished"):
    """A phase is over."""

    name: str


class Built(msgspec.Struct, frozen=True, tag="built"):
    """The engine is written.

    Attributes:
        version: the builder's own.
        plugins: plugin layers in the parsed network.
        timings_reused: whether timings of an earlier build were taken.
    """

    version: str
    plugins: int
    timings_reused: bool = False


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The build failed; the fields are those of DeployError."""

    message: str
    hint: str


Message = PhaseStarted | StepDone | PhaseFinished | Built | Failed


def decode(line: bytes) -> Message:
    """Decode one line from the building process.

    Raises:
        msgspec.MsgspecError: the line is cut short, not JSON, or no message.
    """
    return msgspec.json.decode(line, type=PhaseStarted | StepDone | PhaseFinished | Built | Failed)


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """How far a builder is: a share from 0 to 1 that never falls.

    Phases lie inside one another: a phase that is half done is half of the step of its parent that
    is under way. A builder does not say which step that is, so it is taken to be the next one.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._share = 0.0

    def hear(self, message: Message) -> float:
        """Take in one message and return the share done."""
        if isinstance(message, PhaseStarted):
            self._open[message.name] = _Phase(message.parent, max(message.steps, 1))
        elif isinstance(message, StepDone) and message.name in self._open:
            phase = self._open[message.name]
            phase.done = min(max(phase.done, message.index + 1), phase.steps)
        elif isinstance(message, PhaseFinished):
            finished = self._open.pop(message.name, None)
            if finished is not None and finished.parent is None:
                self._share = 1.0
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        if roots:
            self._share = max(self._share, self._share_of(roots[0]))
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._open[name]
        inner = [child for child, other in self._open.items() if other.parent == name]
        part = self._share_of(inner[-1]) if inner else 0.0
        return min(1.0, (phase.done + part) / phase.steps)
