"""The noise of generated scenes: drawn from a seed, left out of what is stored, and put back.

A scene is a composition with camera noise on top. The noise takes most of the bytes of a lossless
file, and numpy draws it again from a few numbers. So a folder of stored scenes holds for each

    NAME.webp     the picture that, with the noise added and rounded, is the scene
    noise.json    where the noise begins, and the SHA-256 of the scene's PNG file

and :func:`restore` writes ``NAME.png`` again, the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError

LISTING: Final = "noise.json"
_STRONGEST: Final = 6.0
"""Largest standard deviation of the noise, in steps of 0..255."""
_LONGEST_BLOCK: Final = 65535
"""Bytes in an uncompressed block of a zlib stream."""


@dataclass(frozen=True)
class Noise:
    """Where the noise of a scene begins.

    Attributes:
        seed: of the generator that drew the whole scene.
        state: of that generator (PCG64) when the noise began.
    """

    seed: int
    state: int

    @classmethod
    def begins(cls, seed: int, rng: np.random.Generator) -> Noise:
        """The noise that ``rng``, made from ``seed``, draws next."""
        return cls(seed, int(rng.bit_generator.state["state"]["state"]))

    def drawn(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The noise of a scene of this shape, in steps of 0..255."""
        bits = np.random.PCG64(self.seed)
        state = bits.state
        state["state"]["state"] = self.state
        bits.state = state
        return draw_noise(np.random.Generator(bits), shape)


class Composed(Protocol):
    """A scene as its composer drew it."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""

    @property
    def noise(self) -> Noise | None:
        """Where the noise of the image begins."""


def drawn_scene(scene: Composed) -> tuple[NDArray[np.uint8], Noise]:
    """A scene's image and its noise, for :func:`store`.

    Raises:
        ValueError: the scene was read from files, so its noise is not known.
    """
    if scene.noise is None:
        raise ValueError("the noise of this scene is not known")
    return scene.image, scene.noise


def draw_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Normal noise of a random strength."""
    normal = rng.standard_normal(shape)
    return np.asarray(normal * rng.uniform(0.0, _STRONGEST))


def with_noise(picture: NDArray[Any], noise: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture with noise, rounded to uint8."""
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def without_noise(scene: NDArray[np.uint8], noise: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture that :func:`with_noise` turns into ``scene``.

    Raises:
        ValueError: there is none, because the noise is of another scene.
    """
    picture = np.clip(np.rint(scene - noise), 0, 255)
    off = scene.astype(np.float64) - with_noise(picture, noise)
    picture = np.clip(picture + off, 0, 255).astype(np.uint8)  # where rint(scene - noise) was a tie
    if not np.array_equal(with_noise(picture, noise), scene):
        raise ValueError("this is not the noise of the scene")
    return picture


def store(folder: Path, scenes: Mapping[str, tuple[NDArray[np.uint8], Noise]]) -> None:
    """Write scenes, by name, without their noise; see the module for the files."""
    rows = {}
    for name, (scene, noise) in sorted(scenes.items()):
        buffer = io.BytesIO()
        picture = Image.fromarray(without_noise(scene, noise.drawn(scene.shape)))
        picture.save(buffer, format="WEBP", lossless=True, quality=100, method=6)
        atomic.write_bytes(folder / f"{name}.webp", buffer.getvalue())
        digest = hashlib.sha256(png(scene)).hexdigest()
        rows[name] = json.dumps({"seed": noise.seed, "state": hex(noise.state), "sha256": digest})
    text = ",\n".join(f" {json.dumps(name)}: {row}" for name, row in rows.items())
    atomic.write_text(folder / LISTING, f"{{\n{text}\n}}\n")


def restore(folder: Path, out: Path) -> list[Path]:
    """Write the scenes of a folder as ``NAME.png`` into ``out``, where they are not there already.

    Returns:
        The files written.

    Raises:
        DeployError: a stored scene is damaged, or numpy draws other noise than it did.
    """
    written = []
    for name, row in json.loads((folder / LISTING).read_text()).items():
        path = out / f"{name}.png"
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]:
            continue
        with Image.open(folder / f"{name}.webp") as image:
            picture = np.asarray(image.convert("RGB"))
        noise = Noise(row["seed"], int(row["state"], 16)).drawn(picture.shape)
        data = png(with_noise(picture, noise))
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise DeployError(
                f"{folder / name}.webp does not give the scene it was made from",
                "restore the file, and install numpy in the version of constraints.txt",
            )
        atomic.write_bytes(path, data)
        written.append(path)
    return written


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) uint8 RGB as an uncompressed PNG: the same bytes with every library."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = image.reshape(height, -1)
    raw = rows.tobytes()
    blocks = []
    for start in range(0, len(raw), _LONGEST_BLOCK):
        block = raw[start : start + _LONGEST_BLOCK]
        last = start + len(block) == len(raw)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    stream = b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
