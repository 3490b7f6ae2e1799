"""`compare`: a bundle beside its PyTorch reference over pictures, with and without ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from pointrend_deploy.bundle import GALLERY, MARKDOWN, PARITY, REPORT, Bundle
from pointrend_deploy.errors import UsageError
from pointrend_deploy.parity import results
from pointrend_deploy.parity.compare import compare
from pointrend_deploy.parity.dataset import pairs
from pointrend_deploy.parity.gallery import GalleryItem, collect
from pointrend_deploy.parity.report import render_html, render_markdown
from pointrend_deploy.parity.results import Run
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.runner import open_runner
from pointrend_deploy.run.torch_runner import TorchRunner
from pointrend_deploy.verbs.export import installed_versions
from pointrend_deploy.verbs.report import encode_gallery

GALLERY_PICTURES = 6
"""Pictures a comparison draws for its report."""


@dataclass(frozen=True)
class CompareResult:
    """What was found of which bundle, and tiles to show. Truthy when every gate passed."""

    bundle: Bundle
    run: Run
    gallery: tuple[GalleryItem, ...]

    def __bool__(self) -> bool:
        return self.run.passed

    def summary(self) -> str:
        """A table and a verdict for the terminal."""
        run = self.run
        lines = [f"{'':12}{'against':>11}{'agree':>10}{'mIoU':>8}{'bIoU 2px':>10}{'bIoU 2 %':>10}"]
        for row in run.metrics:
            bands = row.boundary_iou
            cells = [_percent(row.agreement, 2), _percent(row.miou)]
            cells += [_percent(bands.get("2 px")), _percent(bands.get("2 %"))]
            widths = (10, 8, 10, 10)
            shown = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            lines.append(f"{row.prediction:12}{row.against:>11}{shown}")
        lines.append("")
        failed = [gate for gate in run.gates if not gate]
        for gate in failed:
            lines.append(
                f"failed: {gate.name} at {gate.stage}: {gate.value} {gate.op} {gate.limit}"
            )
        if run.first_divergent:
            lines.append(f"first stage that differs: {run.first_divergent}")
        lines += [f"skipped {item.name}: {item.reason}" for item in run.skipped]
        verdict = "passed" if run.passed else "FAILED"
        lines.append(
            f"{verdict}: {run.candidate} against {run.reference}, {run.pictures} pictures, "
            f"{len(run.gates)} gates, {len(failed)} failed; see {self.bundle.path / REPORT}"
        )
        return "\n".join(lines)


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def compare_bundle(
    bundle: str | Path,
    images: str | Path,
    *,
    labels: str | Path | None = None,
    runner: str = "onnx",
    weights: str | Path | None = None,
) -> CompareResult:
    """Compare a bundle with PyTorch; :func:`record` keeps what was found.

    Args:
        bundle: the folder.
        images: a picture or a folder of pictures.
        labels: ground-truth label maps by the same stems, or a Cityscapes gtFine folder.
        runner: the side compared with PyTorch.
        weights: for a bundle exported without them.

    Raises:
        DeployError: the bundle, the pictures or the labels cannot be used.
    """
    if runner != "onnx":
        raise UsageError(f"{runner} is not a side to compare with PyTorch", "use --runner onnx")
    bars = Bars()
    with bars.step("opening the bundle"):
        opened = Bundle.open(bundle)
        results.of_bundle(opened)  # a damaged record is said before the work, not after it
        found = pairs(images, labels)
        reference = TorchRunner(opened, weights)
        candidate = open_runner(opened, "onnx")
    with progress_bar("comparing") as tell:
        run = compare(
            candidate,
            reference,
            found,
            versions=installed_versions(),
            progress=lambda done, total, name: tell(done, total),
        )
    skipped = {item.name for item in run.skipped}
    readable = [pair for pair in found if pair.name not in skipped]
    with bars.step("drawing the pictures"):
        gallery = collect(candidate, reference, readable, GALLERY_PICTURES)
    return CompareResult(opened, run, tuple(gallery))


def record(result: CompareResult) -> None:
    """Keep a comparison in its bundle: parity.json, gallery.json and both reports.

    Raises:
        DeployError: the disk refuses; the bundle is as it was.
    """
    bundle = result.bundle
    parity = results.merged(results.of_bundle(bundle), "compare", result.run)
    text = results.encode(parity).decode()
    manifest, table = msgspec.to_builtins(bundle.manifest), msgspec.to_builtins(parity)
    bundle.update(
        {
            PARITY: text,
            GALLERY: encode_gallery(result.gallery),
            REPORT: render_html(manifest, table, result.gallery),
            MARKDOWN: render_markdown(manifest, table, result.gallery),
        }
    )
