"""Make calibration/ again: photographs, generated scenes, and the lists with their SHA-256.

    scripts/fetch_demo_material.sh build/demo_material
    python -m scripts.calibration_set --photos build/demo_material/photos \
        --objects build/demo_material/objects --out calibration

With the versions in constraints.txt the same bytes come out. Nothing in the set is of the split
that the demonstration models are scored on, neither a photograph nor an object nor a seed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError
from scripts.demo_training import noise
from scripts.demo_training.command_line import errors_on_stderr, parser_of
from scripts.demo_training.compose import make_scene
from scripts.demo_training.instance_scene import make_instance_scene
from scripts.demo_training.material import Material, load_material

ROOT: Final = Path(__file__).resolve().parent.parent
SCENE_SEEDS: Final = {"semantic": range(16), "instance": range(16, 32)}
"""Composer -> seeds of its scenes. Training scenes have the seeds 0.. and the scored ones
1,000,000.."""
LONGEST_SIDE: Final = 1024
MOST_BYTES: Final = 180_000
"""Bytes that one photograph may have."""
QUALITIES: Final = (90, 86, 82, 78, 74, 70, 66, 62)
"""JPEG qualities; the first that keeps a photograph within ``MOST_BYTES`` is taken."""
WHOLE: Final = (0.0, 0.0, 1.0, 1.0)
Drawn = tuple[NDArray[np.uint8], noise.Noise]
COMPOSERS: Final[dict[str, Callable[[int, Material], Drawn]]] = {
    "semantic": lambda seed, material: noise.drawn_scene(make_scene(seed, material)),
    "instance": lambda seed, material: noise.drawn_scene(make_instance_scene(seed, material)),
}


@dataclass(frozen=True)
class Photograph:
    """A file of photographs/ without its suffix, its source and the part taken.

    ``part`` is left, top, right and bottom as fractions of the upright source.
    """

    name: str
    source: str
    part: tuple[float, float, float, float] = WHOLE


_PARTS: Final = {
    "aitzgorri_by_Aitzol_Berasategi.jpg": {
        "aitzgorri": WHOLE,
        "aitzgorri_ridge": (0.30, 0.10, 1.0, 0.63),
    },
    "brick.png": {"brick": WHOLE},
    "Picture_1A_by_freespace.jpg": {"brushes": WHOLE, "brushes_close": (0.0, 0.25, 0.62, 0.85)},
    "camera.png": {"camera": WHOLE},
    "chelsea.png": {"chelsea": WHOLE},
    "china.jpg": {"china": WHOLE},
    "coffee.png": {"coffee": WHOLE},
    "seeding_by_Clements_Engelhardt.jpg": {
        "dandelions": WHOLE,
        "dandelions_close": (0.15, 0.05, 0.65, 0.65),
    },
    "Picture_0B_by_freespace.jpg": {"fig": WHOLE, "fig_close": (0.38, 0.22, 0.78, 0.72)},
    "flower.jpg": {"flower": WHOLE},
    "friends_by_Aitzol_Berasategi.jpg": {"friends": WHOLE, "friends_close": (0.2, 0.2, 0.9, 0.62)},
    "life_by_Aitzol_Berasategi.jpg": {
        "life": WHOLE,
        "life_forest": (0.0, 0.0, 0.72, 0.54),
        "life_stream": (0.25, 0.45, 1.0, 1.0),
    },
    "rocket.jpg": {"rocket": WHOLE},
}
"""Source -> the parts taken from it, each under the name of its file."""

PHOTOGRAPHS: Final = tuple(
    Photograph(name, source, part)
    for source, parts in _PARTS.items()
    for name, part in parts.items()
)


def main() -> None:
    """Read the command line; exit 1 with a message where something is wrong."""
    args = parser_of(__doc__).parse_args()
    with errors_on_stderr():
        write_photographs(PHOTOGRAPHS, args.photos, args.out)
        write_scenes(SCENE_SEEDS, load_material(args.photos, args.objects, "train"), args.out)


def write_photographs(photographs: Sequence[Photograph], sources: Path, out: Path) -> None:
    """Write ``photographs/NAME.jpg`` and ``photographs.sha256``.

    Raises:
        DeployError: a source is missing, or does not fit in ``MOST_BYTES``.
    """
    for photograph in photographs:
        jpeg = encoded(photograph, sources / photograph.source)
        atomic.write_bytes(out / "photographs" / f"{photograph.name}.jpg", jpeg)
    write_list(
        out / "photographs.sha256",
        [out / "photographs" / f"{photograph.name}.jpg" for photograph in photographs],
    )


def encoded(photograph: Photograph, source: Path) -> bytes:
    """Encode a photograph as it is shipped: upright, cut, shrunk, JPEG without metadata.

    Raises:
        DeployError: the source is missing, or no quality keeps it within ``MOST_BYTES``.
    """
    if not source.is_file():
        raise DeployError(
            f"the photograph {source} is missing", "scripts/fetch_demo_material.sh fetches it"
        )
    with Image.open(source) as opened:
        image = ImageOps.exif_transpose(opened)
        image = image.convert("L" if image.mode == "L" else "RGB")
    left, top, right, bottom = photograph.part
    width, height = image.size
    image = image.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
    raise DeployError(
        f"{photograph.name} has more than {MOST_BYTES} bytes at quality {QUALITIES[-1]}",
        "take a smaller part",
    )


def write_scenes(seeds: Mapping[str, Sequence[int]], material: Material, out: Path) -> None:
    """Write ``scenes/COMPOSER_SEED.png``, their list ``scenes.sha256``, and ``noiseless/``.

    The repository stores ``noiseless/`` and makes ``scenes/`` from it. The two composers draw the
    same classes; objects of instance scenes are larger.
    """
    files, made = [], {}
    for composer, chosen in seeds.items():
        for seed in chosen:
            path = out / "scenes" / f"{composer}_{seed:04}.png"
            made[path.stem] = COMPOSERS[composer](seed, material)
            atomic.write_bytes(path, noise.png(made[path.stem][0]))
            files.append(path)
    noise.store(out / "noiseless", made)
    write_list(out / "scenes.sha256", files)


def write_list(path: Path, files: Sequence[Path]) -> None:
    """Write a list as ``sha256sum`` does, with paths relative to the list's folder."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  "
        f"{file.relative_to(path.parent).as_posix()}\n"
        for file in sorted(files)
    ]
    atomic.write_text(path, "".join(lines))


if __name__ == "__main__":
    main()
