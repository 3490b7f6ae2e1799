"""Read and write TensorRT calibration caches: text files with one scale per tensor.

The first line is ``TRT-<version>-<calibrator>``. Every other line is ``<tensor>: <hex>``, where hex
is the big-endian float32 of the scale, amax / 127.
"""

from __future__ import annotations

import math
import re
import struct
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.qdq import LEVELS

VERSION: Final = "100300"
"""TensorRT 10.3.0 in the notation of a cache: the oldest version this project builds for."""
_BEGINS: Final = b"TRT-"
_FIRST: Final = re.compile(r"TRT-\d+-\w+")
_HEX: Final = re.compile(r"[0-9a-fA-F]{8}")


def is_cache(raw: bytes) -> bool:
    """Return whether a file's bytes begin like a TensorRT calibration cache."""
    return raw.removeprefix(BOM_UTF8).lstrip().startswith(_BEGINS)


def read_cache(path: str | Path) -> dict[str, float]:
    """Read the ranges of a cache of any TensorRT version and calibrator.

    Returns:
        By tensor, in the order of the file, the largest absolute value to represent, above 0.

    Raises:
        DeployError: the file cannot be read, or a line has another form; its number is named.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DeployError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DeployError(f"{path} is not a TensorRT calibration cache: not text") from error
    if not lines or not _FIRST.fullmatch(lines[0].strip()):
        raise DeployError(
            f"{path} is not a TensorRT calibration cache: its first line is not "
            "TRT-<version>-<calibrator>",
            "caches begin with a line such as TRT-100300-EntropyCalibration2",
        )
    found: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        name, amax = _parsed(line, f"{path}, line {number}")
        if name in found:
            raise DeployError(f"{path}, line {number}: a second scale of {name}")
        found[name] = amax
    if not found:
        raise DeployError(f"{path} has no scale", "calibrate again")
    return found


def _parsed(line: str, where: str) -> tuple[str, float]:
    name, colon, digits = line.strip().rpartition(": ")
    if not colon or not name or not _HEX.fullmatch(digits):
        raise DeployError(
            f"{where}: {line.strip()!r} is not '<tensor>: <8 hexadecimal digits>'",
            "the file may be cut off or edited: make the cache again",
        )
    scale = struct.unpack(">f", bytes.fromhex(digits))[0]
    if not (math.isfinite(scale) and scale > 0):
        raise DeployError(
            f"{where}: the scale of {name} is {scale:g}, and a scale is a number above 0",
            "the tensor was zero or not finite in calibration: calibrate again",
        )
    return name, scale * LEVELS


def write_cache(path: str | Path, amax: Mapping[str, float], version: str = VERSION) -> None:
    """Write ranges in the form of TensorRT's entropy calibrator.

    Args:
        path: path of the file, which is replaced atomically.
        amax: by tensor, the largest absolute value to represent; lines are in this order.
        version: TensorRT version in the first line.

    Raises:
        DeployError: a range is not a number above 0, its scale is out of float32's range, a name
            does not fit on a line, or the file cannot be written.
    """
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, value in amax.items():
        if not name or name != name.strip() or len(name.splitlines()) > 1:
            raise DeployError(f"a calibration cache cannot hold the name {name!r}")
        try:
            packed = struct.pack(">f", value / LEVELS)
        except OverflowError:
            packed = struct.pack(">f", math.inf)
        scale = struct.unpack(">f", packed)[0]
        if not (math.isfinite(scale) and scale > 0):
            raise DeployError(f"a calibration cache cannot hold {value:g} as the range of {name}")
        lines.append(f"{name}: {packed.hex()}")
    atomic.write_text(path, "\n".join(lines) + "\n")
