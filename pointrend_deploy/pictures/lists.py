"""The pictures of a calibration: lists with SHA-256, blank pictures, pictures that are the same."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import sha256_of
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.files import SUFFIXES, list_pictures, missing_hint, printable

FEW: Final = 8
"""A note says that fewer pictures than this are few: each is then more than a tenth of every
histogram, and one picture alone may decide a range. They are used all the same."""
BLANK_DEVIATION: Final = 2.0
"""Standard deviation of a channel, in 0..255; a picture is blank where all are below it. Sensor
noise and JPEG's rounding of a plain colour stay below it."""
_HASHED: Final = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES: Final = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


@dataclass(frozen=True)
class ListedPicture:
    """A picture of a list or a folder.

    Attributes:
        path: of the file.
        name: as in the list, or the file's name in its folder.
        sha256: of the file; empty where a folder's file cannot be read.
    """

    path: Path
    name: str
    sha256: str


def read_list(path: Path) -> tuple[ListedPicture, ...]:
    """Read a list of pictures and check the SHA-256 of each file.

    A line is ``<SHA-256>  <path>``, as ``sha256sum`` writes it, or a path alone, whose SHA-256 is
    computed here. Paths are relative to the list. Empty lines and lines that begin with ``#`` are
    ignored.

    Raises:
        DeployError: the list cannot be read or is empty, or a line's picture is missing, cannot be
            read, or has another SHA-256; the line is named.
    """
    try:
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    if "\0" in text:
        raise DeployError(
            f"{path} is not a list of pictures: it is not text",
            "give a folder of pictures, or a text file with lines 'SHA256  path'",
        )
    found = [
        _listed(path, number, line.rstrip("\r"))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        raise DeployError(f"the list {path} names no picture", "lines are 'SHA256  path'")
    return tuple(found)


def _listed(listing: Path, number: int, line: str) -> ListedPicture:
    where = f"{listing}, line {number}"
    match = _HASHED.fullmatch(line)
    name = match[3] if match else line.strip()
    if match and match[1]:  # sha256sum marks names that it had to escape
        name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name)
    path = listing.parent / name
    if not path.is_file():
        raise DeployError(
            f"{where}: there is no picture {path}",
            "a list has a picture's path in each line, relative to the list's own folder",
        )
    try:
        actual = sha256_of(path)
    except DeployError as error:
        raise DeployError(f"{where}: {error.message}", error.hint) from error
    if match and actual != match[2].lower():
        raise DeployError(
            f"{where}: {path} is not the picture that was listed: its SHA-256 begins "
            f"{actual[:12]}, the list says {match[2].lower()[:12]}",
            "the file was changed or damaged; if the change is meant, list it again: sha256sum",
        )
    return ListedPicture(path, printable(Path(name).as_posix()), actual)


def is_blank(rgb: npt.NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W, 3) is blank: all channels constant, or nearly so.

    Blank pictures are observed all the same, as a camera may give a plain wall or a black frame.
    They fill the histograms' lowest bins, which lowers the ranges of ``percentile`` and
    ``entropy``; a note names them, so that whoever made the list can decide.
    """
    return bool((rgb.reshape(-1, 3).std(axis=0) < BLANK_DEVIATION).all())


def pixels_sha256(rgb: npt.NDArray[np.uint8]) -> str:
    """Compute the SHA-256 of a picture's size and pixels, whatever its file's format."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def listed(images: Path) -> tuple[ListedPicture, ...]:
    """List the pictures of a folder, sorted by name, or of a list, each with its SHA-256.

    Raises:
        DeployError: there is no such folder or list, no picture in it, or a line of the list is
            wrong; see :func:`read_list`.
    """
    images = Path(images)
    if images.is_file():
        if images.suffix.lower() in SUFFIXES:
            raise DeployError(
                f"{images} is a picture, where a folder or a list of pictures is needed",
                "a list is a text file with lines 'SHA256  path'",
            )
        return read_list(images)
    if not images.exists():
        raise DeployError(f"no such folder or list of pictures: {images}", missing_hint(images))
    return tuple(
        ListedPicture(path, printable(path.name), _sha256(path)) for path in list_pictures(images)
    )


def _sha256(path: Path) -> str:
    """Compute a file's SHA-256; empty where it cannot be read (reading the picture says why)."""
    try:
        return sha256_of(path)
    except DeployError:
        return ""
