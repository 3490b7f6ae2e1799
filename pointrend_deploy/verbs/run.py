"""`run`: a bundle over pictures and folders of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy.bundle.forms import Precision, RunnerName
from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.results import OVERLAYS, RESULTS, RunResults
from pointrend_deploy.run.task import TASKS
from pointrend_deploy.run.writer import PictureOptions
from pointrend_deploy.wording import count_of


@dataclass(frozen=True)
class RunOptions:
    """How `run` runs a bundle; see :func:`pointrend_deploy.run.open.open_runner`.

    Attributes:
        runner: the program that runs it.
        weights: a checkpoint in place of the bundle's weights, for the torch runner.
        engine: folder under ``engines/``, for the runners auto and tensorrt.
        precision: of the bundle's graph or engine.
        draw_above: with an instance bundle, the lowest score that is drawn, in [0, 1].
        recursive: whether to run the pictures in sub-folders as well.
    """

    runner: RunnerName = "auto"
    weights: str | Path | None = None
    engine: str | None = None
    precision: Precision | None = None
    draw_above: float | None = None
    recursive: bool = False


def run_bundle(
    bundle: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    options: RunOptions | None = None,
) -> RunResults:
    """Run a bundle on pictures and write label maps or detections, overlays and results.json.

    Args:
        bundle: the folder.
        images: pictures, folders of pictures and patterns, or one of them.
        out: the folder for the results; see :func:`pointrend_deploy.run.folder.run_pictures`.
        options: None for the usual ones.

    Raises:
        DeployError: the bundle or the runner cannot be used, there is no picture, or ``out`` is no
            place for results.
    """
    asked = options or RunOptions()
    said: list[str] = []
    with Bars().step("opening the bundle"):
        choice = asked.runner, asked.weights, asked.engine, asked.precision
        runner = open_runner(bundle, *choice, tell=said.append)
    for line in said:  # after the step's own line
        print(line, file=sys.stderr)
    with progress_bar("pictures") as progress:
        drawing = PictureOptions(recursive=asked.recursive, draw_above=asked.draw_above)
        return run_pictures(runner, images, out, drawing, progress=progress)


def summary(results: RunResults, out: str | Path) -> str:
    """Say in a few lines what was written, what was skipped and why, and how long it took."""
    folder, pictures = Path(out), results.pictures
    skipped = [f"skipped {item.file}: {item.reason}" for item in results.skipped]
    if not pictures:
        return "\n".join(["no picture could be read", *skipped])
    answers, *lines = TASKS[results.task].summary(pictures, folder)
    drawn = f", overlays in {folder / OVERLAYS}" if any(row.overlay for row in pictures) else ""
    done = f"{count_of(len(pictures), 'picture')} with runner {results.runner}"
    lines.insert(0, f"{done}: {answers}{drawn}, {folder / RESULTS}")
    if results.sub_folders_left:
        left = count_of(results.sub_folders_left, "sub-folder")
        lines.append(f"not searched: {left} (--recursive searches them)")
    lines += skipped
    if results.latency is not None:
        lines.append(results.latency.line(results.runner, results.precision))
    return "\n".join(lines)
