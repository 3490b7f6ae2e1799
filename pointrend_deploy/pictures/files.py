"""Picture files: found in a folder, and read as RGB."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pointrend_deploy.errors import DeployError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".mpo"),
)
"""Endings of a folder's files that are pictures, in capital or small letters."""

MAX_PIXELS = 178_956_970
"""Larger pictures are refused: 512 MiB of RGB, above which Pillow too suspects a bomb."""

_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_PLAIN = ("1", "L", "La", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")


@dataclass(frozen=True)
class Picture:
    """A picture that was read: its file and its pixels, (H, W, 3) uint8 RGB."""

    path: Path
    rgb: npt.NDArray[np.uint8]


def missing_hint(path: Path) -> str:
    """Say what may be wrong with the path of pictures that are not there."""
    if set("*?[") & set(str(path)):
        return "patterns are for the pictures of `run` only: give the folder that they are in"
    return "check the path for a slip"


def list_pictures(path: str | Path, *, recursive: bool = False) -> list[Path]:
    """List the pictures at a path, sorted.

    A file is listed whatever its suffix. Of a folder, the files are listed whose suffix is in
    ``SUFFIXES``, without hidden ones (macOS writes ``._name.jpg`` beside ``name.jpg``). No file is
    opened.

    Args:
        path: a picture or a folder.
        recursive: whether to list the pictures in sub-folders as well.

    Raises:
        DeployError: the path is missing, or there is no picture in the folder.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DeployError(f"no such picture or folder: {path}", missing_hint(path))
        if not path.is_dir():
            return [path]
        found = _pictures_below(path, recursive)
    except OSError as error:
        raise DeployError(f"cannot look into {error.filename}: {error.strerror}") from error
    if not found:
        below = 0 if recursive else len(sub_folders(path))
        raise DeployError(
            f"no picture in the folder {path}"
            + (f" (sub-folders not looked into: {below})" if below else ""),
            f"pictures are files that end in {' '.join(SUFFIXES)}"
            + ("; `run --recursive` looks into sub-folders" if below else ""),
        )
    return found


def sub_folders(path: str | Path) -> list[Path]:
    """List the folders directly in a folder, sorted, without hidden ones; none for a file."""
    path = Path(path)
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures_below(folder: Path, recursive: bool) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [
            Path(here, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def printable(name: str) -> str:
    r"""Spell a file name so that JSON can hold it: bytes that are not UTF-8 become ``\udc..``."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read one picture as RGB, upright.

    EXIF orientation is applied. Grey is repeated over the channels; palettes are looked up; alpha
    is dropped (the colours under it stay); CMYK is converted, Adobe's inverted form included.
    16-bit grey is scaled by 1/257 and rounded; of 16-bit colour the high byte is kept. Only the
    first picture of an animation or a document of many pages is read. Colour profiles are not
    applied, as in training.

    Raises:
        DeployError: the file is missing, empty, not a picture, truncated or corrupt, of a pixel
            type without a fixed range (float, 32-bit), or larger than ``MAX_PIXELS``.
    """
    path = Path(path)
    with _said_of(f"picture {path}"):
        if path.is_dir():
            raise DeployError(f"{path} is a folder, not a picture", "give the path of a file in it")
        if not path.is_file():
            raise DeployError(f"no such picture: {path}", "check the path for a slip")
        if path.stat().st_size == 0:
            raise DeployError(f"picture {path} is empty (0 bytes)", "copy or download it again")
        with Image.open(path) as image:
            return Picture(path, _decode(image, f"picture {path}"))


def rgb_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a PIL picture as :func:`read_picture` returns those of its file.

    Returns:
        (H, W, 3) uint8 RGB; the picture given stays as it is.

    Raises:
        DeployError: as :func:`read_picture`; a picture that was opened from a file and not loaded
            yet is read from it here.
    """
    file = getattr(image, "filename", "")
    name = f"picture {file}" if isinstance(file, str) and file else "the PIL picture"
    with _said_of(name):
        return _decode(image, name)


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while a picture is read into a DeployError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's doubts end as a picture or as an error here
            yield
    except DeployError:
        raise
    except UnidentifiedImageError as error:
        raise DeployError(
            f"{name} cannot be read: it is not a picture, or of a kind that Pillow does not know",
            "JPEG, PNG, TIFF, BMP, WebP and GIF can be read",
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except MemoryError as error:
        raise DeployError(f"{name} does not fit in memory", "shrink it first") from error
    except Exception as error:  # decoders raise whatever broken bytes led them to
        if isinstance(error, OSError) and error.strerror:  # the system's word, not a decoder's
            raise DeployError(f"cannot read {name}: {error.strerror}") from error
        raise DeployError(
            f"{name} is truncated or corrupt: {error}", "copy or download it again"
        ) from error


def _decode(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _GREY_16:
        return _grey16_to_rgb(name, np.asarray(upright))
    if upright.mode not in _PLAIN:
        raise DeployError(
            f"{name} has pixels of type {upright.mode!r}, whose range is not known",
            "save it with 8 bits a channel (or 16 bits, grey) first",
        )
    rgb: npt.NDArray[np.uint8] = np.array(upright.convert("RGB"))
    return rgb


def _grey16_to_rgb(name: str, grey: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    wide = grey.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise DeployError(
            f"{name} has grey values from {wide.min()} to {wide.max()}, beyond 16 bits",
            "save it with 8 or 16 bits a pixel first",
        )
    eight = ((wide + 128) // 257).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2)


def _too_large(name: str) -> DeployError:
    return DeployError(
        f"{name} is too large: more than {MAX_PIXELS:,} pixels (a decompression bomb?)",
        "shrink it or cut it into tiles first",
    )
