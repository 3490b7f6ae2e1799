"""`run`: a bundle over a picture or a folder."""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.progress import Bars, progress_bar
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.results import RunResults
from pointrend_deploy.run.runner import RunnerName, open_runner


def run_bundle(
    bundle: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    runner: RunnerName = "auto",
    weights: str | Path | None = None,
) -> RunResults:
    """Write label maps, overlays and results.json; see ``run.folder.run_pictures``.

    Raises:
        DeployError: the bundle, the runner, or all of the input cannot be used.
    """
    with Bars().step("opening the bundle"):
        opened = open_runner(bundle, runner, weights)
    with progress_bar("pictures") as progress:
        return run_pictures(opened, images, out, progress=progress)


def summary(results: RunResults, out: str | Path) -> str:
    """A few lines for the terminal: what was written, what was skipped and why."""
    shown = Path(out)
    count = len(results.pictures)
    if not count:
        lines = ["no picture could be read"]
        return "\n".join(lines + [f"skipped {i.file}: {i.reason}" for i in results.skipped])
    lines = [
        f"{count} {'picture' if count == 1 else 'pictures'} with runner {results.runner}: "
        f"label maps in {shown / 'labels'}, overlays in {shown / 'overlays'}, "
        f"{shown / 'results.json'}"
    ]
    ways = sorted({picture.labels_from for picture in results.pictures})
    if ways:
        lines.append(f"labels at the pictures' own size: {', '.join(ways)}")
    if results.sub_folders_left:
        lines.append(f"{results.sub_folders_left} sub-folders were not looked into")
    lines += [f"skipped {item.file}: {item.reason}" for item in results.skipped]
    return "\n".join(lines)
