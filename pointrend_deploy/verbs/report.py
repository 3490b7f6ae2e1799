"""`report`: HTML and Markdown from a bundle's manifest, parity.json and gallery.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import GALLERY, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.report import report_files


def encode_gallery(gallery: Sequence[GalleryItem]) -> str:
    """``gallery.json``: the tiles of some pictures, so that a report can be rendered again."""
    return msgspec.json.encode(list(gallery)).decode() + "\n"


def stored_gallery(bundle: Bundle) -> list[GalleryItem]:
    """The tiles a comparison left in the bundle; none where there was no comparison.

    Raises:
        DeployError: the file was changed.
    """
    if GALLERY not in bundle.manifest.files:
        return []
    raw = bundle.file(GALLERY).read_bytes()
    try:
        return msgspec.json.decode(raw, type=list[GalleryItem])
    except msgspec.DecodeError as error:
        raise DeployError(f"{GALLERY} cannot be read: {error}", "run compare again") from error


def write_reports(bundle: str | Path, out: str | Path | None = None) -> list[Path]:
    """Render both reports.

    Args:
        bundle: the folder.
        out: another folder for them; in the bundle, and listed in its manifest, when absent.

    Returns:
        The files written.

    Raises:
        DeployError: no bundle, an unreadable parity.json, or the disk refuses.
    """
    opened = Bundle.open(bundle)
    files = report_files(opened, stored_gallery(opened))
    if out is None:
        opened.update(files)
        return [opened.path / name for name in files]
    for name, text in files.items():
        atomic.write_text(Path(out) / name, text)
    return [Path(out) / name for name in files]
