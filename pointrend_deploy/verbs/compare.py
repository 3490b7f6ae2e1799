"""`compare`: a bundle beside its PyTorch reference over pictures, with and without ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy.bundle import GALLERY, PARITY, REPORT, Bundle
from pointrend_deploy.parity import results
from pointrend_deploy.parity.compare import compare
from pointrend_deploy.parity.dataset import pairs
from pointrend_deploy.parity.gallery import collect
from pointrend_deploy.parity.report import report_files
from pointrend_deploy.parity.results import Run
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.runner import RunnerName, open_runner
from pointrend_deploy.run.torch_runner import TorchRunner
from pointrend_deploy.verbs.export import installed_versions
from pointrend_deploy.verbs.report import encode_gallery

GALLERY_PICTURES = 6
"""Pictures a comparison draws for its report."""


@dataclass(frozen=True)
class CompareResult:
    """What was found, and the bundle that now holds it. Truthy when every gate passed."""

    bundle: Bundle
    run: Run

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
    runner: RunnerName = "onnx",
    weights: str | Path | None = None,
) -> CompareResult:
    """Compare, and record it in the bundle's parity.json and reports.

    Args:
        bundle: the folder.
        images: a picture or a folder of pictures.
        labels: ground-truth label maps by the same stems, or a Cityscapes gtFine folder.
        runner: the side compared with PyTorch.
        weights: for a bundle exported without them.

    Raises:
        DeployError: the bundle, the pictures or the labels cannot be used.
    """
    opened = Bundle.open(bundle)
    found = pairs(images, labels)
    reference = TorchRunner(opened, weights)
    candidate = reference if runner == "torch" else open_runner(opened, runner)
    with progress_bar("comparing") as tell:
        run = compare(
            candidate,
            reference,
            found,
            versions=installed_versions(),
            progress=lambda done, total, name: tell(done, total),
        )
    parity = results.merged(results.load(opened.path / PARITY), "compare", run)
    skipped = {item.name for item in run.skipped}
    readable = [pair for pair in found if pair.name not in skipped]
    with Bars().step("drawing the report"):
        gallery = collect(candidate, reference, readable, GALLERY_PICTURES)
        files = {PARITY: results.encode(parity).decode(), GALLERY: encode_gallery(gallery)}
        opened = opened.update(files)
        opened = opened.update(report_files(opened, gallery))
    return CompareResult(opened, run)
