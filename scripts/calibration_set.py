"""Make calibration/ again: photographs, generated scenes, and the lists with their SHA-256.

    scripts/fetch_demo_material.sh build/demo_material
    python -m scripts.calibration_set --photos build/demo_material/photos \
        --objects build/demo_material/objects --out calibration

With the versions in constraints.txt the same bytes come out. Nothing in the set is of the split
that the demonstration models are scored on, neither a photograph nor an object nor a seed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
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
from scripts.demo_training.compose import make_scene
from scripts.demo_training.instance_scene import make_instance_scene
from scripts.demo_training.material import Material, load_material

ROOT: Final = Path(__file__).resolve().parent.parent
SCENE_SEEDS: Final = {"semantic": range(16), "instance": range(16, 32)}
"""By composer. Training scenes have the seeds 0.. and the scored ones 1,000,000.."""
LONGEST_SIDE: Final = 1024
MOST_BYTES: Final = 180_000
"""Of one photograph."""
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


PHOTOGRAPHS: Final = (
    Photograph("aitzgorri", "aitzgorri_by_Aitzol_Berasategi.jpg"),
    Photograph("aitzgorri_ridge", "aitzgorri_by_Aitzol_Berasategi.jpg", (0.30, 0.10, 1.0, 0.63)),
    Photograph("brick", "brick.png"),
    Photograph("brushes", "Picture_1A_by_freespace.jpg"),
    Photograph("brushes_close", "Picture_1A_by_freespace.jpg", (0.0, 0.25, 0.62, 0.85)),
    Photograph("camera", "camera.png"),
    Photograph("chelsea", "chelsea.png"),
    Photograph("china", "china.jpg"),
    Photograph("coffee", "coffee.png"),
    Photograph("dandelions", "seeding_by_Clements_Engelhardt.jpg"),
    Photograph("dandelions_close", "seeding_by_Clements_Engelhardt.jpg", (0.15, 0.05, 0.65, 0.65)),
    Photograph("fig", "Picture_0B_by_freespace.jpg"),
    Photograph("fig_close", "Picture_0B_by_freespace.jpg", (0.38, 0.22, 0.78, 0.72)),
    Photograph("flower", "flower.jpg"),
    Photograph("friends", "friends_by_Aitzol_Berasategi.jpg"),
    Photograph("friends_close", "friends_by_Aitzol_Berasategi.jpg", (0.2, 0.2, 0.9, 0.62)),
    Photograph("life", "life_by_Aitzol_Berasategi.jpg"),
    Photograph("life_forest", "life_by_Aitzol_Berasategi.jpg", (0.0, 0.0, 0.72, 0.54)),
    Photograph("life_stream", "life_by_Aitzol_Berasategi.jpg", (0.25, 0.45, 1.0, 1.0)),
    Photograph("rocket", "rocket.jpg"),
)


def main() -> None:
    """Read the command line; exit 1 with a message where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        write_photographs(PHOTOGRAPHS, args.photos, args.out)
        write_scenes(SCENE_SEEDS, load_material(args.photos, args.objects, "train"), args.out)
    except DeployError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(1) from error


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
    """A photograph as it is shipped: upright, cut, shrunk, JPEG without metadata.

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
