"""The pictures of a calibration: lists with SHA-256, blank ones, ones that show the same."""

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
from pointrend_deploy.pictures.files import SUFFIXES, list_pictures, printable

FEW: Final = 8
"""Fewer pictures than this are said to be few: each of them is then more than a tenth of every
histogram, and what decides a range may be in one picture only. They are used all the same."""
BLANK_DEVIATION: Final = 2.0
"""Standard deviation of a channel, in 0..255, below which a picture shows nothing: sensor noise and
JPEG's rounding of a plain colour stay below it."""
_HASHED: Final = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES: Final = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


@dataclass(frozen=True)
class ListedPicture:
    """A picture to calibrate on.

    Attributes:
        path: of the file.
        name: as the list has it, or within its folder.
        sha256: of the file; empty where a folder's file cannot be read.
    """

    path: Path
    name: str
    sha256: str


def read_list(path: Path) -> tuple[ListedPicture, ...]:
    """The pictures of a list, each file's SHA-256 checked.

    Lines are those of ``sha256sum``, ``<SHA-256>  <path>``, or a path alone, whose SHA-256 is then
    found here; paths are relative to the list. Empty lines and lines that begin with ``#`` are
    left out.

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
            f"{where}: there is no picture {path}", "paths are relative to the list's own folder"
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
    """Whether a picture (H, W, 3) shows nothing: all channels (nearly) constant.

    Such pictures are observed all the same: a plain wall or a black frame may be what a camera
    gives. They fill the histograms' lowest bins, which draws ``percentile`` and ``entropy`` down,
    so they are said and whoever made the list decides.
    """
    return bool((rgb.reshape(-1, 3).std(axis=0) < BLANK_DEVIATION).all())


def pixels_sha256(rgb: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a picture's size and pixels, whatever file they came in."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def listed(images: Path) -> tuple[ListedPicture, ...]:
    """The pictures of a folder, sorted by name, or of a list; each with its SHA-256.

    Raises:
        DeployError: no such folder or list, no picture in it, or a line of the list that does not
            hold; see :func:`pointrend_deploy.pictures.lists.read_list`.
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
        raise DeployError(f"no such folder or list of pictures: {images}", "check the path")
    return tuple(
        ListedPicture(path, printable(path.name), _sha256(path)) for path in list_pictures(images)
    )


def _sha256(path: Path) -> str:
    """Empty where the file cannot be read; reading the picture then says why."""
    try:
        return sha256_of(path)
    except DeployError:
        return ""
