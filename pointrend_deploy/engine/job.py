"""What the process that builds is told, and what it says while it does."""

from __future__ import annotations

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
    """An error with words; see DeployError."""

    message: str
    hint: str


Message = PhaseStarted | StepDone | PhaseFinished | Built | Failed


def decode(line: bytes) -> Message:
    """One line of what the building process says. Raises msgspec.DecodeError or ValidationError."""
    return msgspec.json.decode(line, type=PhaseStarted | StepDone | PhaseFinished | Built | Failed)
