"""The first lines of a report: whether the bundle passed, and the figures that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pointrend_deploy.parity.gates import accuracy_gates
from pointrend_deploy.parity.record.precisions import PrecisionTable
from pointrend_deploy.parity.record.runs import Parity, Run
from pointrend_deploy.report.differences import beyond_limits, changes, no_intervals, worst_cases
from pointrend_deploy.report.figures import Fact, counted, milliseconds
from pointrend_deploy.report.precision_view import column_status, warnings_of
from pointrend_deploy.report.task import report_task


@dataclass(frozen=True)
class Verdict:
    """The head of a report.

    Attributes:
        status: of the whole record. It is ``warning`` where nothing failed and a lower precision's
            answers are too often others than fp32's.
        sentence: the status in one sentence.
        details: a sentence on each run, and on each lower precision.
        facts: figures in large type.
    """

    status: Literal["passed", "warning", "failed", "not compared"]
    sentence: str
    details: tuple[str, ...]
    facts: tuple[Fact, ...]


def verdict(parity: Parity) -> Verdict:
    """Return the head of a record's report.

    It is ``failed`` if any run or any precision failed, ``warning`` if any precision has one.
    """
    if not parity.runs:
        return Verdict(
            "not compared", "This bundle was never compared with its PyTorch reference.", (), ()
        )
    details = tuple(_tell(name, run) for name, run in parity.runs.items())
    details += _tell_precisions(parity.precisions)
    failed = next((run for run in parity.runs.values() if not run), None)
    main = parity.runs.get("compare", next(iter(parity.runs.values())))
    facts = (*report_task(main.task).facts(parity, main), *_cost(main))
    if failed is None and not (parity.precisions is None or parity.precisions):
        lost = "A lower precision of this bundle loses more than its limits allow."
        return Verdict("failed", lost, details, facts)
    if failed is None and parity.precisions is not None:
        warned = [
            f"{column.precision} answers otherwise than fp32 too often: {warnings_of(column)[0]}"
            for column in parity.precisions.columns
            if column_status(column) == "warning"
        ]
        if warned:
            sentence = f"No limit failed, but {'; '.join(warned)}."
            return Verdict("warning", sentence, details, facts)
    if failed is None:
        return Verdict(
            "passed", "This bundle computes what its PyTorch reference computes.", details, facts
        )
    where = failed.first_divergent
    sentence = "This bundle differs from its PyTorch reference" + (
        f", first at stage {where}." if where else "."
    )
    return Verdict("failed", sentence, details, facts)


def _cost(run: Run) -> list[Fact]:
    """Return what a call took on the machine that compared, and the size of the graph."""
    found = []
    if run.call_ms is not None:
        height, width = run.canvas_hw
        found.append(
            Fact(
                milliseconds(run.call_ms),
                "time of a picture"
                if run.batch in (None, 1)
                else f"time of {counted(run.batch or 1, 'picture')}",
                f"{runner_name(run.candidate)}, {height} \N{MULTIPLICATION SIGN} {width}, median "
                "while comparing; no benchmark",
            )
        )
    if run.graph_bytes is not None:
        found.append(Fact(f"{run.graph_bytes / 1e6:.1f} MB", "FP32 graph", "weights included"))
    return found


def _tell(name: str, run: Run) -> str:
    when = "At export" if name == "export" else f"Over {counted(run.pictures, 'picture')}"
    row = next((stage for stage in run.stages if not stage), None)
    skipped = f" Left out, as not readable: {len(run.skipped)}." if run.skipped else ""
    candidate, reference = runner_name(run.candidate), runner_name(run.reference)
    if row is not None:
        return f"{when}, {candidate} fails at {row.name}: {row.problem}.{skipped}"
    gate = next((gate for gate in run.gates if not gate), None)
    if gate is not None:
        return f"{when}, {candidate} fails the gate “{gate.name}” of {gate.stage}.{skipped}"
    same = report_task(run.task).agrees_in(run)
    return (
        f"{when}, {candidate} agrees with {reference} in {same}, within every tolerance.{skipped}"
    )


def _tell_precisions(table: PrecisionTable | None) -> tuple[str, ...]:
    """Return what is to be said of every lower precision: limits, worst cases, intervals."""
    if table is None:
        return ()
    found = []
    for column in table.columns:
        failed = [gate.name for gate in column.gates if not gate]
        how = " in ONNX Runtime's simulation" if column.simulated else ""
        said = [worst_cases(column), changes(column.intervals, "fp32"), beyond_limits(column)]
        if column.precision == "fp32":
            worst = worst_cases(column)
            said = [f"fp32: {worst}" if worst else ""]
        elif failed:
            said.insert(0, f"{column.precision}{how} fails: {', '.join(failed)}")
        elif accuracy_gates(column):
            on = counted(table.pictures, "picture")
            said.insert(0, f"{column.precision}{how} keeps every limit of its scores on {on}")
        else:
            said.insert(0, f"{column.precision}{how} was compared without limits on its accuracy")
        if any(said):
            first, *more = (each for each in said if each)
            found.append(" ".join(f"{each}." for each in (first, *map(_capital, more))))
    if table.truth and len(table.columns) > 1 and not any(c.intervals for c in table.columns[1:]):
        found.append(f"{_capital(no_intervals(table.pictures))}.")
    return tuple(found)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def runner_name(name: str) -> str:
    """Return a runner's name in words: ``ONNX Runtime`` for ``onnx``."""
    return {"onnx": "ONNX Runtime", "torch": "PyTorch", "tensorrt": "TensorRT"}.get(name, name)
