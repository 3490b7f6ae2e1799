"""`compare --precision`: one runner for each chosen precision, and the table of their figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity.comparison import CandidateName
from pointrend_deploy.parity.gates import accuracy_gates, ungated
from pointrend_deploy.parity.record.precisions import (
    PRECISIONS,
    PrecisionColumn,
    PrecisionName,
    PrecisionTable,
)
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner

Array = npt.NDArray[Any]


class Runs(Protocol):
    """The runner of one precision."""

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Run the graph or engine once and return its outputs, by name."""


ENGINES_GIVE_OUTPUTS = "engines give outputs only; ONNX Runtime (--runner onnx) gives stages too"


@dataclass(frozen=True)
class Columns:
    """An opened runner for every precision of a comparison.

    Attributes:
        bundle: what they run.
        fp32: the runner that the others are compared with: an FP32 engine where ``fp32`` was chosen
            with ``--runner tensorrt``, otherwise the FP32 graph in ONNX Runtime.
        others: the other runners, by precision.
    """

    bundle: Bundle
    fp32: BundleRunner
    others: Mapping[PrecisionName, BundleRunner]

    @property
    def names(self) -> tuple[PrecisionName, ...]:
        """The precisions, fp32 first."""
        return ("fp32", *self.others)

    @property
    def stages_note(self) -> str:
        """Why no stages can be compared; empty where they can."""
        runs = {each.name for each in (self.fp32, *self.others.values())}
        return ENGINES_GIVE_OUTPUTS if "tensorrt" in runs else ""


def asked(
    bundle: Bundle, names: Sequence[str], runner: CandidateName, engine: str | None = None
) -> tuple[PrecisionName, ...]:
    """Return the precisions that a user chose, in the order of ``PRECISIONS``.

    Args:
        bundle: the bundle.
        names: of precisions; or ``all`` alone, for each of which the bundle has a graph (with
            ``onnx``) or an engine (with ``tensorrt``).
        runner: the kind of runner of the columns.
        engine: the folder of one engine, where one was named.

    Raises:
        UsageError: a name that is no precision, or several precisions for one engine.
        DeployError: the bundle has no graph, or no engine, of a chosen precision.
    """
    manifest = bundle.manifest
    has = set(manifest.graphs)
    if runner == "tensorrt":
        has = {record.precision for record in manifest.engines.values()}
    if runner == "tensorrt" and not has:
        raise DeployError(
            f"the bundle {manifest.name} has no engines",
            f"build one: `pointrend-deploy build {shlex.quote(str(bundle.path))}`, or compare with "
            "--runner onnx",
        )
    wanted = has if tuple(names) == ("all",) else set(names)
    if not names or (unknown := wanted - set(PRECISIONS)):
        said = ", ".join(sorted(unknown)) if names else "nothing"
        raise UsageError(
            f"--precision takes fp32, fp16 and int8, or all by itself, not {said}",
            "for example --precision fp32,fp16",
        )
    if engine is not None and len(wanted) > 1:
        raise UsageError(
            f"{engine} is one engine, of one precision", "leave --engine out, or ask for its own"
        )
    found = tuple(name for name in PRECISIONS if name in wanted)
    for name in found if runner == "onnx" else ():
        bundle.graphs_of(name)
    if runner == "tensorrt" and (lacking := [name for name in found if name not in has]):
        raise DeployError(
            f"the bundle {manifest.name} has no engine of {', '.join(lacking)}",
            f"build it: pointrend-deploy build {shlex.quote(str(bundle.path))} "
            f"--precision {lacking[0]}",
        )
    return found


def open_columns(
    bundle: Bundle,
    names: Sequence[PrecisionName],
    runner: CandidateName,
    engine: str | None = None,
) -> Columns:
    """Open a runner for each precision, and always one for fp32.

    Args:
        bundle: the bundle.
        names: the precisions, from :func:`asked`.
        runner: the kind of runner.
        engine: the folder of one engine, where one was named.

    Raises:
        DeployError: a runner cannot be opened.
    """
    opened = {name: open_runner(bundle, runner, engine=engine, precision=name) for name in names}
    fp32 = opened.pop("fp32", None) or open_runner(bundle, "onnx", precision="fp32")
    return Columns(bundle, fp32, opened)


def described(columns: Columns, name: PrecisionName) -> PrecisionColumn:
    """Return the column of a precision without its figures.

    It says what the manifest and the disk know: graphs, engines, sizes and layers.

    Args:
        columns: the opened runners.
        name: the precision.
    """
    bundle = columns.bundle
    manifest = bundle.manifest
    runner = columns.fp32 if name == "fp32" else columns.others[name]
    has_graph = name in manifest.graphs
    graphs = manifest.graphs_of(name) if has_graph else ()
    record = manifest.quantized.get(name)
    sizes = {
        folder: [engine.size for engine in each.engines]
        for folder, each in manifest.engines.items()
        if each.precision == name and manifest.still_has_graphs_of(each)
    }
    column = PrecisionColumn(
        precision=name,
        runner=runner.name,
        engine=getattr(runner, "engine", None),
        graphs={file: manifest.files[file] for file in graphs},
        graph_bytes=sum(bundle.file(file).stat().st_size for file in graphs) if graphs else None,
        engines={folder: sum(each) if all(each) else None for folder, each in sizes.items()},
        stages_note=columns.stages_note,
    )
    if record is None:
        return column
    return msgspec.structs.replace(
        column,
        fallback=record.fallback,
        int8_layers=len(record.int8),
        fp32_layers=record.fp32,
        int8_flops=record.int8_flops,
        left_out=record.left_out,
        method=record.method,
        pictures=record.pictures,
    )


def table_of(
    run: Run,
    task: Literal["semantic", "instance"],
    columns: Sequence[PrecisionColumn],
    stage_pictures: int,
    truth_options: str | None,
) -> PrecisionTable:
    """Return the table of a comparison.

    Args:
        run: the FP32 column beside the reference.
        task: of the bundle.
        columns: with their figures and gates.
        stage_pictures: number of pictures whose stages were compared.
        truth_options: where no truth was given, the options that give one; None where there was.
    """
    gated = {each.precision: bool(accuracy_gates(each)) for each in columns}
    return PrecisionTable(
        task=task,
        created=run.created,
        pictures=run.pictures,
        stage_pictures=stage_pictures,
        truth=truth_options is None,
        columns=tuple(columns),
        notes=() if truth_options is None else ungated(gated, truth_options),
    )
