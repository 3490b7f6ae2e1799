"""The table of precisions with every figure as text, for HTML, Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pointrend_deploy.parity.gates import accuracy_gates, cautions
from pointrend_deploy.parity.noise import ENTRY_DB, entry
from pointrend_deploy.parity.record.precisions import PrecisionColumn, PrecisionGate, PrecisionTable
from pointrend_deploy.report.differences import beyond_limits, changes, no_intervals, worst_cases
from pointrend_deploy.report.figures import MINUS, NONE, counted, percent
from pointrend_deploy.report.precision_rows import Group, groups
from pointrend_deploy.report.task import report_task

Status = Literal["passed", "warning", "failed", "not gated"]


@dataclass(frozen=True)
class NoiseRow:
    """A stage, and the signal-to-noise ratio (SNR) of each lower precision there.

    Attributes:
        stage: its name.
        cells: the ratios as text, such as ``41 dB``, ``equal`` or a dash.
        shares: length of each bar, as a share (0..1) of the longest; None without a bar.
        enters: for each precision whether the error enters here.
    """

    stage: str
    cells: tuple[str, ...]
    shares: tuple[float | None, ...]
    enters: tuple[bool, ...]


@dataclass(frozen=True)
class GateRow:
    """A limit of a lower precision, in words.

    ``warns`` is set where a value beyond the limit is a warning and not a failure.
    """

    precision: str
    name: str
    value: str
    limit: str
    reason: str
    passed: bool
    warns: bool = False


@dataclass(frozen=True)
class View:
    """All that is shown of a table of precisions.

    Attributes:
        status: see :func:`status_of`.
        columns: the precisions, fp32 first.
        names: the same, in words.
        worst: for each precision a sentence on its worst cases, with their pictures.
        changes: for each lower precision how its scores changed, with intervals, and which of these
            reach beyond a limit.
        simulated: the precisions that ONNX Runtime imitated, in words; empty where there are none.
        lower: the precisions whose stages are in ``noise``.
        entries: for each of ``lower`` a sentence on where the error enters.
        outdated: the precisions whose graph has changed since, in words.
        near_zero: whether the stages include logits of points that are near zero by choice.
        left_out: layers that do not compute in INT8, with their reasons, by precision.
        full_db: SNR in dB of a full bar.
        entry_db: SNR in dB below which the error enters.
    """

    status: Status
    created: str
    pictures: int
    stage_pictures: int
    columns: tuple[str, ...]
    names: str
    worst: tuple[str, ...]
    changes: tuple[str, ...]
    simulated: str
    groups: tuple[Group, ...]
    gates: tuple[GateRow, ...]
    notes: tuple[str, ...]
    lower: tuple[str, ...]
    noise: tuple[NoiseRow, ...]
    entries: tuple[str, ...]
    stages_note: str
    outdated: str
    near_zero: bool
    left_out: tuple[tuple[str, Mapping[str, str]], ...]
    unreadable: tuple[str, ...]
    full_db: int
    entry_db: int


FULL_BAR_DB = 80.0
"""An SNR that fills a bar: FP16's own rounding is 66 to 72 dB below its values."""


def view(table: PrecisionTable, files: Mapping[str, str] | None = None) -> View:
    """Return all that is shown of a table.

    Args:
        table: from the record.
        files: SHA-256 of the bundle's files now, by name; graphs that have changed since are named.
    """
    task = report_task(table.task)
    columns = table.columns
    lower = tuple(column for column in columns if column.stages)
    changed = [
        column.precision
        for column in columns
        if files is not None
        and any(files.get(name) != digest for name, digest in column.graphs.items())
    ]
    return View(
        status=status_of(table),
        created=table.created,
        pictures=table.pictures,
        stage_pictures=table.stage_pictures,
        columns=tuple(column.precision for column in columns),
        names=_and(column.precision for column in columns),
        worst=tuple(f"{c.precision}: {said}" for c in columns if (said := worst_cases(c))),
        changes=_changes(table),
        simulated=_and(column.precision for column in columns if column.simulated),
        groups=groups(table, task.score_groups(table), task.points_note),
        gates=tuple(
            row
            for column in columns
            for row in (
                *(_gate_row(column.precision, gate) for gate in column.gates),
                *(_gate_row(column.precision, gate, warns=True) for gate in cautions(column)),
            )
        ),
        notes=table.notes,
        lower=tuple(column.precision for column in lower),
        noise=_noise(lower),
        entries=tuple(map(entry_sentence, lower)),
        stages_note=next((column.stages_note for column in columns if column.stages_note), ""),
        outdated=_and(changed),
        near_zero=any(row.near_zero for column in lower for row in column.stages),
        left_out=tuple((c.precision, c.left_out) for c in columns if c.left_out),
        unreadable=tuple(f"{c.precision}: {why}" for c in columns for why in c.unreadable[:5]),
        full_db=round(FULL_BAR_DB),
        entry_db=round(ENTRY_DB),
    )


def status_of(table: PrecisionTable) -> Status:
    """Return the status of a table: ``passed`` only where every precision but fp32 is.

    ``failed`` goes before ``warning``, and that before ``not gated``.
    """
    found = {column_status(column) for column in table.columns}
    order: tuple[Status, ...] = ("failed", "warning", "not gated")
    return next((status for status in order if status in found), "passed")


def column_status(column: PrecisionColumn) -> Status:
    """Return the status of one precision.

    It is ``warning`` where no gate failed but the answers are too often others than fp32's, and
    ``not gated`` where a precision other than fp32 has no gate on its accuracy.
    """
    if not column:
        return "failed"
    if not all(cautions(column)):
        return "warning"
    if column.precision == "fp32" or accuracy_gates(column):
        return "passed"
    return "not gated"


def warnings_of(column: PrecisionColumn) -> tuple[str, ...]:
    """Return a few words on every caution that a precision does not meet."""
    return tuple(
        f"the {gate.name} is {percent(gate.value, 1)}, below {percent(gate.limit, 0)}"
        for gate in cautions(column)
        if not gate
    )


def _changes(table: PrecisionTable) -> tuple[str, ...]:
    """Return a sentence for each lower precision; one on why there is none where none has any."""
    lower = table.columns[1:]
    said = [
        f"{column.precision}: {each}"
        for column in lower
        for each in (changes(column.intervals, "fp32"), beyond_limits(column))
        if each
    ]
    return tuple(said) if said or not (table.truth and lower) else (no_intervals(table.pictures),)


def entry_sentence(column: PrecisionColumn) -> str:
    """Say in a sentence where the error of a precision enters."""
    first = entry(column.stages)
    known = [
        each.snr_db for each in column.stages if each.snr_db is not None and not each.near_zero
    ]
    if first is not None:
        place = next(i for i, each in enumerate(column.stages) if each is first)
        before = next((e for e in reversed(column.stages[:place]) if not e.near_zero), None)
        how = first.problem or f"{first.snr_db:.0f} dB"
        if before is not None and before.snr_db is not None:
            how += f"; {before.snr_db:.0f} dB at the stage before it"
        elif before is not None and before.noise == 0:
            how += "; the stage before it equals fp32's"
        return f"{column.precision}: the error enters at {first.stage} ({how})"
    unknown = sum(bool(each.problem) for each in column.stages)
    if known:
        said = f"no stage falls below {ENTRY_DB:.0f} dB; least {min(known):.0f} dB"
    elif any(each.noise for each in column.stages):
        said = "every stage equals the FP32 graph's, except logits that are near zero by choice"
    elif unknown < len(column.stages):
        said = "every stage equals the FP32 graph's"
    else:
        return f"{column.precision}: no stage could be compared"
    if unknown:
        said += f"; {counted(unknown, 'stage')} could not be compared"
    return f"{column.precision}: {said}"


def _gate_row(precision: str, gate: PrecisionGate, warns: bool = False) -> GateRow:
    def text(value: float | None) -> str:
        if value is None:
            return NONE
        if gate.name.startswith("drop"):
            return f"{100 * value:.2f} points".replace("-", MINUS)
        return percent(value) if gate.op == ">=" else f"{value:g}"

    sign = "≤" if gate.op == "<=" else "≥"
    return GateRow(
        precision=precision,
        name=gate.name,
        value=text(gate.value),
        limit=f"{sign} {text(gate.limit)}",
        reason=gate.reason,
        passed=gate.passed,
        warns=warns,
    )


def _and(names: Iterable[str]) -> str:
    every = list(names)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def _noise(lower: Sequence[PrecisionColumn]) -> tuple[NoiseRow, ...]:
    if not lower:
        return ()
    first = [entry(column.stages) for column in lower]
    rows = []
    for number, stage in enumerate(lower[0].stages):
        found = [column.stages[number] for column in lower]
        rows.append(
            NoiseRow(
                stage=stage.stage,
                cells=tuple(
                    each.problem or ("equal" if each.noise == 0 else NONE)
                    if each.snr_db is None
                    else f"{each.snr_db:.0f} dB"
                    for each in found
                ),
                shares=tuple(
                    None if each.snr_db is None else min(max(each.snr_db / FULL_BAR_DB, 0.0), 1.0)
                    for each in found
                ),
                enters=tuple(each is mark for each, mark in zip(found, first, strict=True)),
            )
        )
    return tuple(rows)
