"""`compare --precision`: a runner for every precision asked for, and the table they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from pointrend_deploy.bundle import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity.precision_compare import LabelColumns, Stages
from pointrend_deploy.parity.precision_gates import drop_gates, label_gates, ungated
from pointrend_deploy.parity.precision_results import (
    PRECISIONS,
    LabelFigures,
    PrecisionColumn,
    PrecisionName,
    PrecisionTable,
)
from pointrend_deploy.parity.results import Run
from pointrend_deploy.run.runner import BundleRunner, open_runner

CandidateName = Literal["onnx", "tensorrt"]
ENGINES_GIVE_OUTPUTS = "engines give outputs only; ONNX Runtime (--runner onnx) gives stages too"


@dataclass(frozen=True)
class Columns:
    """An opened runner for every precision of a comparison.

    Attributes:
        fp32: what the others are held against: an engine where one was asked for, otherwise the
            FP32 graph in ONNX Runtime.
        others: by precision.
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
        """Why no stages are compared; empty where they are."""
        runs = {each.name for each in (self.fp32, *self.others.values())}
        return ENGINES_GIVE_OUTPUTS if "tensorrt" in runs else ""


def asked(
    bundle: Bundle, names: Sequence[str], runner: CandidateName, engine: str | None = None
) -> tuple[PrecisionName, ...]:
    """The precisions a user's names stand for, in the order of ``PRECISIONS``.

    Args:
        bundle: opened.
        names: of precisions, or ``all`` alone: those the bundle has graphs, or engines, of.
        runner: of the columns.
        engine: the folder of one engine.

    Raises:
        UsageError: a name that is none, or several precisions of one engine.
        DeployError: the bundle has no graph, or no engine, of a precision.
    """
    manifest = bundle.manifest
    has = set(manifest.graphs)
    if runner == "tensorrt":
        has = {record.precision for record in manifest.engines.values()}
    if runner == "tensorrt" and not has:
        raise DeployError(
            f"the bundle {manifest.name} has no engines",
            "build one: pointrend-deploy build BUNDLE, or compare with --runner onnx",
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
        manifest.graphs_of(name)
    if runner == "tensorrt" and (lacking := [name for name in found if name not in has]):
        raise DeployError(
            f"the bundle {manifest.name} has no engine of {', '.join(lacking)}",
            f"build it: pointrend-deploy build BUNDLE --precision {lacking[0]}",
        )
    return found


def open_columns(
    bundle: Bundle,
    names: Sequence[PrecisionName],
    runner: CandidateName,
    engine: str | None = None,
) -> Columns:
    """A runner for each precision, and for fp32 whether or not it was asked for.

    Raises:
        DeployError: a runner cannot be opened.
    """
    opened = {
        name: open_runner(bundle, runner, engine=engine, precision=name)
        if runner == "tensorrt"
        else open_runner(bundle, "onnx", precision=name)
        for name in names
    }
    fp32 = opened.pop("fp32", None) or open_runner(bundle, "onnx", precision="fp32")
    return Columns(bundle, fp32, opened)


def label_columns(columns: Columns) -> LabelColumns:
    """What watches the comparison of a semantic bundle."""
    return LabelColumns(columns.bundle.manifest.semantic, columns.others, _stages(columns))


def _stages(columns: Columns) -> dict[PrecisionName, Stages]:
    if columns.stages_note or not columns.others:
        return {}
    from pointrend_deploy.verbs.precision_taps import SemanticStages, read_graph, taps

    bundle = columns.bundle
    paths = {name: bundle.file(bundle.manifest.graphs_of(name)[0]) for name in columns.names}
    wanted = taps(read_graph(paths["fp32"]))
    return {name: SemanticStages(path, wanted) for name, path in paths.items()}


def label_table(columns: Columns, found: LabelColumns, run: Run) -> PrecisionTable:
    """The table of a semantic bundle.

    Args:
        columns: what ran.
        found: what it gave.
        run: of the FP32 column beside the reference.
    """
    truth = next(
        (r for r in run.metrics if (r.prediction, r.against) == ("reference", "truth")), None
    )
    fp32 = found.columns["fp32"].truth
    made, held = [], {}
    for name in columns.names:
        own = found.columns[name]
        scores = own.truth
        gates = drop_gates(name, _scores(fp32), _scores(scores))
        if truth is None:
            gates = label_gates(name, own.agreement("fp32"), own.compared)
        held[name] = bool(gates)
        stages, points = found.stages_of(name)
        made.append(
            msgspec.structs.replace(
                described(columns, name),
                labels_compared=own.compared,
                agrees_reference=own.agreement("reference"),
                agrees_fp32=None if name == "fp32" else own.agreement("fp32"),
                truth=scores,
                beside_reference=own.mutual,
                points=points,
                stages=stages,
                gates=gates,
            )
        )
    return PrecisionTable(
        task="semantic",
        created=run.created,
        pictures=run.pictures,
        stage_pictures=found.staged,
        truth=truth is not None,
        columns=tuple(made),
        reference_truth=None
        if truth is None
        else LabelFigures(miou=truth.miou, boundary_iou=truth.boundary_iou),
        notes=() if truth is not None else ungated(held, "semantic"),
    )


def described(columns: Columns, name: PrecisionName) -> PrecisionColumn:
    """A column with what the manifest and the disk say of its precision, and no figures yet."""
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


def _scores(figures: LabelFigures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {"mIoU": figures.miou, "boundary IoU, 2 px": figures.boundary_iou.get("2 px")}
