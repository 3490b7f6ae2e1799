"""`compare --precision`: a runner for every precision asked for, and the table they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.parity.record.precisions import (
    PRECISIONS,
    PrecisionColumn,
    PrecisionName,
)
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.runner import BundleRunner

Array = npt.NDArray[Any]
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


class Runs(Protocol):
    """What is needed of a precision's runner."""

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call: the bundle's outputs by name."""
