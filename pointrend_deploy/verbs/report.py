"""`report`: HTML and Markdown from a bundle's manifest, parity.json and gallery.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pointrend_deploy import atomic
from pointrend_deploy.bundle.folder import GALLERY, Bundle, refuse_bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.report.report import report_files


def encode_gallery(gallery: Sequence[GalleryItem]) -> str:
    """Encode the tiles of pictures as ``gallery.json``, so that reports can be rendered again."""
    return msgspec.json.encode(list(gallery)).decode() + "\n"


def stored_gallery(bundle: Bundle) -> list[GalleryItem]:
    """Read the tiles of a bundle's last comparison; none where there was no comparison.

    Raises:
        DeployError: the file was changed, or cannot be read.
    """
    if GALLERY not in bundle.manifest.files:
        return []
    raw = bundle.file(GALLERY).read_bytes()
    try:
        return msgspec.json.decode(raw, type=list[GalleryItem])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeployError(f"{GALLERY} cannot be read: {error}", "run compare again") from error


def write_reports(bundle: str | Path, out: str | Path | None = None) -> list[Path]:
    """Render both reports.

    Args:
        bundle: the folder.
        out: another folder for them; None for the bundle itself.

    Returns:
        The files written.

    Raises:
        DeployError: the bundle or its parity.json cannot be read, or the disk refuses.
    """
    opened = Bundle.open(bundle)
    return keep(opened, report_files(opened, stored_gallery(opened)), out)


def keep(bundle: Bundle, files: Mapping[str, str], out: str | Path | None) -> list[Path]:
    """Write files into the bundle and list them in its manifest, or write them elsewhere.

    Args:
        bundle: the bundle.
        files: texts by file name.
        out: another folder for them; None for the bundle.

    Returns:
        The files written.

    Raises:
        DeployError: the other folder is a bundle or lies in one, or the disk refuses.
    """
    if out is None:
        bundle.update(files)
        return [bundle.path / name for name in files]
    refuse_bundle(Path(out))
    for name, text in files.items():
        atomic.write_text(Path(out) / name, text)
    return [Path(out) / name for name in files]
