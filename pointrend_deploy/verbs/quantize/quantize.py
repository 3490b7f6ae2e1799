"""`quantize`: make the FP16 or INT8 graphs of a bundle, check them, and write them into it."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.errors import DeployError
from pointrend_deploy.progress import Progress, Silent
from pointrend_deploy.verbs.quantize.check import Measured
from pointrend_deploy.verbs.quantize.make import checked_graphs
from pointrend_deploy.verbs.quantize.options import QuantizeOptions

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["QuantizeOptions", "QuantizeResult", "quantize_bundle"]

_LISTED = 6
"""Most names of layers in a line of the summary."""


@dataclass(frozen=True)
class QuantizeResult:
    """Graphs that were made, checked and written.

    Attributes:
        bundle: the bundle that now has them.
        precision: their precision.
        record: their entry in the manifest.
        files: their file names, in the order they run.
        measured: comparison with FP32 in ONNX Runtime.
        notes: warnings.
        more: further lines for the terminal.
        seconds: time taken.
    """

    bundle: Bundle
    precision: Precision
    record: QuantizedRecord
    files: tuple[str, ...]
    measured: Measured
    notes: tuple[str, ...]
    more: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        path = self.bundle.path
        before = self.bundle.graphs_of("fp32")
        lines = [
            f"bundle      {path}",
            f"graph       {', '.join(self.files)}: {_mib(path, self.files):.1f} MiB, FP32 has "
            f"{_mib(path, before):.1f}",
        ]
        if self.record.fp32:
            lines.append(f"kept FP32   {_listed(self.record.fp32)}")
        lines += self.more
        if self.measured.span is not None and (range_line := self.measured.span.line()):
            lines.append(f"FP16 range  {range_line}")
        lines.append(f"measured    {self.measured.line()}")
        lines += [f"note        {note}" for note in self.notes]
        lines += [
            f"time        {self.seconds:.1f} s",
            f"next        pointrend-deploy compare {shlex.quote(str(path))} --images FOLDER "
            f"--precision fp32,{self.precision}",
        ]
        return "\n".join(lines)


def quantize_bundle(
    bundle: str | Path | Bundle, options: QuantizeOptions, progress: Progress | None = None
) -> QuantizeResult:
    """Make the graphs of one precision, check them, and write all of them into the bundle.

    Earlier graphs of that precision are replaced. Engines built from them are refused from then on,
    because the manifest records the graph that an engine was built from.

    Args:
        bundle: the bundle's folder, or an opened bundle.
        options: options of `quantize`.
        progress: receives each step.

    Raises:
        UsageError: options contradict each other, or a pattern matches nothing.
        DeployError: a graph cannot be made or is not sound; the bundle is unchanged.
        ParityError: a graph's outputs are not usable; the bundle is unchanged.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    options.check()
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    with progress.step("reading the FP32 graph"):
        fp32 = _read(opened)
    found, measured = checked_graphs(opened, fp32, options, progress)
    made, record = found.graphs, found.record
    with progress.step("writing"):
        files = {name: file_of(name, options.precision) for name in made}
        contents = {files[name]: graph.SerializeToString() for name, graph in made.items()}
        written = opened.update(
            contents, lambda manifest: _recorded(manifest, options.precision, files, record)
        )
    return QuantizeResult(
        bundle=written,
        precision=options.precision,
        files=tuple(files[name] for name in written.graphs_of("fp32")),
        record=record,
        measured=measured,
        notes=(*found.notes, *measured.notes(), *_outdated(written, options.precision)),
        more=found.more,
        seconds=time.perf_counter() - started,
    )


def _outdated(bundle: Bundle, precision: Precision) -> tuple[str, ...]:
    """Name the engines that were built from replaced graphs of this precision."""
    engines = [
        name
        for name, record in bundle.manifest.engines.items()
        if record.precision == precision and not bundle.manifest.still_has_graphs_of(record)
    ]
    if not engines:
        return ()
    return (f"engines built from the earlier graph, refused from now on: {', '.join(engines)}",)


def file_of(fp32: str, precision: Precision) -> str:
    """Return the file name of the graph made from an FP32 one: model.onnx -> model.fp16.onnx."""
    return f"{PurePosixPath(fp32).stem}.{precision}.onnx"


def _read(bundle: Bundle) -> dict[str, ModelProto]:
    """Load the FP32 graphs, by file name. Raises DeployError if a file is not ONNX."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    graphs = {}
    for name in bundle.graphs_of("fp32"):
        try:
            graphs[name] = onnx.load(bundle.file(name))
        except DecodeError as error:
            raise DeployError(
                f"{bundle.path / name} is not an ONNX file", "export the bundle again"
            ) from error
    return graphs


def _recorded(
    manifest: Manifest, precision: Precision, files: dict[str, str], record: QuantizedRecord
) -> Manifest:
    """Return the manifest with the new graphs and their record.

    Raises:
        DeployError: an FP32 graph has been replaced since it was read.
    """
    for name, sha256 in record.sources.items():
        if manifest.files.get(name) != sha256:
            raise DeployError(
                f"{name} was replaced while it was being quantised", "run quantize again"
            )
    instance = manifest.instance
    if instance is not None and instance.mask_graphs:
        masks = files[instance.mask_graphs["fp32"]]
        instance = msgspec.structs.replace(
            instance, mask_graphs={**instance.mask_graphs, precision: masks}
        )
    return msgspec.structs.replace(
        manifest,
        graphs={**manifest.graphs, precision: files[manifest.graphs["fp32"]]},
        instance=instance,
        quantized={**manifest.quantized, precision: record},
    )


def _mib(path: Path, files: tuple[str, ...]) -> float:
    return sum((path / name).stat().st_size for name in files) / 2**20


def _listed(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
