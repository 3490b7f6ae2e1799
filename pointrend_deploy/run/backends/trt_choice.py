"""The engine that ``--runner auto`` takes, or why it takes none.

Nothing of TensorRT is imported before a record of the manifest fits this machine's system,
processor and GPU.

Of engines of several precisions that fit, the lowest is taken whose accuracy `compare --precision`
has passed, on the graphs that the bundle has now. Where none has passed, the most accurate one is
taken. Where the user names a precision, only engines of it are looked at.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pointrend_deploy.bundle.folder import PARITY, Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.records import EngineRecord
from pointrend_deploy.engine.targets import first_gpu
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.backends import trt

_ACCURATE_FIRST: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
_TITLE: Final = "auto: runner tensorrt"


class _Limit(msgspec.Struct):
    passed: bool


class _Column(msgspec.Struct):
    precision: str
    graphs: dict[str, str] = {}
    gates: tuple[_Limit, ...] = ()
    cautions: tuple[_Limit, ...] = ()


class _Table(msgspec.Struct):
    truth: bool
    columns: tuple[_Column, ...]


class _Parity(msgspec.Struct):
    """The part of ``parity.json`` that is read here; parity/record has all of it."""

    precisions: _Table | None = None


def open_fitting(
    bundle: Bundle, precision: Precision | None = None
) -> tuple[trt.TrtRunner | None, str]:
    """Open the engine of a bundle that ``auto`` takes.

    Args:
        bundle: with engines in its manifest.
        precision: of the engine; None for any.

    Returns:
        The runner and a line that names runner, engine and precision; or None and the reason why
        there is none.
    """
    engines = {
        name: record
        for name, record in bundle.manifest.engines.items()
        if precision in (None, record.precision)
    }
    if not engines:
        return None, f"the bundle has no {precision} engine"
    if far := _far(engines):
        return None, far
    try:
        trt.check_machine(any(record.ops == "plugin" for record in engines.values()))
        runner = trt.TrtRunner(bundle, None, precision, preferred)
    except DeployError as error:
        return None, error.message
    return runner, f"{_TITLE}, engine {runner.engine}, precision {runner.precision}"


def _far(engines: dict[str, EngineRecord]) -> str:
    """Say why none of some engines is for this machine's GPU and system; empty where one is."""
    gpu = first_gpu()
    capability = gpu.capability if gpu else None
    reasons = []
    for name, record in engines.items():
        host = trt.Host(record.builder, record.version, capability, record.plugin_sha256)
        reason = trt.mismatch(record, host)
        if not reason:
            return ""
        reasons.append(f"{name} {reason}")
    return "; ".join(reasons)


def preferred(bundle: Bundle, host: trt.Host, precision: Precision | None = None) -> str:
    """Choose one of the engines that fit a host.

    Engines of graphs that the bundle has no more come last. Of two of one precision the one with
    plugins is taken.

    Raises:
        DeployError: none fits, with the reason for each.
    """
    manifest = bundle.manifest
    fitting = {name: manifest.engines[name] for name in trt.fitting(bundle, host, precision)}
    present = {name: each for name, each in fitting.items() if manifest.still_has_graphs_of(each)}
    fitting = present or fitting  # those of other graphs are refused with that reason
    have = {record.precision for record in fitting.values()}
    passed = [each for each in _ACCURATE_FIRST[:0:-1] if each in have and _passed(bundle, each)]
    best = next(iter(passed), None) or next(each for each in _ACCURATE_FIRST if each in have)
    names = [name for name, record in fitting.items() if record.precision == best]
    return min(names, key=lambda name: (fitting[name].ops != "plugin", name))


def _passed(bundle: Bundle, precision: Precision) -> bool:
    """Whether a comparison with gates on accuracy passed the present graphs of a precision."""
    manifest = bundle.manifest
    try:
        raw = bundle.file(PARITY).read_bytes()
        table = msgspec.json.decode(raw, type=_Parity).precisions
    except (DeployError, msgspec.MsgspecError, OSError):
        return False
    if table is None or not (table.truth or manifest.instance is None):
        return False  # without a truth, detections have no gate on their accuracy
    present = {file: manifest.files.get(file) for file in manifest.graphs_of(precision)}
    return any(
        column.precision == precision
        and column.graphs == present
        and bool(column.gates)
        and all(each.passed for each in (*column.gates, *column.cautions))
        for column in table.columns
    )
