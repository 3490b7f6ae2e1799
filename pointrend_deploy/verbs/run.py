"""`run`: a bundle over a picture or a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.results import (
    DETECTIONS,
    LABELS,
    OVERLAYS,
    RESULTS,
    InstanceResult,
    PictureResult,
    RunResults,
)
from pointrend_deploy.run.runner import Precision, RunnerName

_CLASSES_SHOWN = 5


def run_bundle(
    bundle: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    runner: RunnerName = "auto",
    weights: str | Path | None = None,
    draw_above: float | None = None,
    engine: str | None = None,
    precision: Precision | None = None,
) -> RunResults:
    """Write label maps or detections, overlays and results.json; see ``run.folder.run_pictures``.

    Raises:
        DeployError: the bundle, the runner, or all of the input cannot be used.
    """
    with Bars().step("opening the bundle"):
        opened = open_runner(bundle, runner, weights, engine, precision)
    with progress_bar("pictures") as progress:
        return run_pictures(opened, images, out, draw_above=draw_above, progress=progress)


def summary(results: RunResults, out: str | Path) -> str:
    """A few lines for the terminal: what was written, what was skipped and why."""
    shown = Path(out)
    count = len(results.pictures)
    if not count:
        lines = ["no picture could be read"]
        return "\n".join(lines + [f"skipped {i.file}: {i.reason}" for i in results.skipped])
    lines = [f"{_number(count, 'picture')} with runner {results.runner}: {_files(results, shown)}"]
    ways = {row.labels_from for row in results.pictures if isinstance(row, PictureResult)}
    if ways:
        lines.append(f"labels at the pictures' own size: {', '.join(sorted(ways))}")
    found = [row for row in results.pictures if isinstance(row, InstanceResult)]
    if found:
        total, none = sum(row.detections for row in found), sum(not row.detections for row in found)
        empty = f", none in {_number(none, 'picture')}" if none else ""
        lines.append(f"{_number(total, 'detection')}{empty}{_by_class(found)}")
    if results.sub_folders_left:
        lines.append(f"{results.sub_folders_left} sub-folders were not looked into")
    lines += [f"skipped {item.file}: {item.reason}" for item in results.skipped]
    return "\n".join(lines)


def _files(results: RunResults, out: Path) -> str:
    answers = (
        f"label maps in {out / LABELS}"
        if results.task == "semantic"
        else f"detections in {out / DETECTIONS}"
    )
    overlays = any(row.overlay for row in results.pictures)
    drawn = f", overlays in {out / OVERLAYS}" if overlays else ""
    return f"{answers}{drawn}, {out / RESULTS}"


def _by_class(found: list[InstanceResult]) -> str:
    counts: Counter[str] = Counter()
    for row in found:
        counts.update(row.class_counts)
    best = counts.most_common(_CLASSES_SHOWN)
    named = ", ".join(f"{count} {name}" for name, count in best)
    more = len(counts) - len(best)
    others = f" and {_number(more, 'other class', 'other classes')}" if more else ""
    return f": {named}{others}" if named else ""


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
