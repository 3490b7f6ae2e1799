"""Make the picture at the head of the README: one scene, before and after PointRend.

    python -m scripts.readme_picture          # docs/pointrend.webp

It needs the demonstration model and its scenes, which ``python -m scripts.unpack_demo`` makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pointrend_deploy import load_model
from pointrend_deploy.parity.subdivision.replay import bilinear
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.recipe.semantic import load_recipe
from pointrend_deploy.report.gallery.zoom import framed, window_of
from pointrend_deploy.run.overlay import class_colours
from scripts.unpack_demo import unpack

ROOT: Final = Path(__file__).resolve().parent.parent
RECIPE: Final = ROOT / "export" / "demo_semantic.toml"
WEIGHTS: Final = ROOT / "demo" / "demo_semantic.safetensors"
OUT: Final = ROOT / "docs" / "pointrend.webp"
SCENE: Final = "0001"
"""A held-out scene in which PointRend has about the average share of wrong pixels, 4.9 %."""
SIDE, GAP, EDGE, TITLE = 280, 10, 14, 34
"""Pixels: of a tile, between tiles, around all of them, and of the line of a title."""
OPACITY = 0.72
PAPER, INK = (255, 255, 255), (28, 32, 36)

UInt8 = NDArray[np.uint8]


def answers(scene: str) -> tuple[UInt8, dict[str, UInt8]]:
    """Return a scene and its label maps: coarse, PointRend and the truth.

    Args:
        scene: stem of its file.

    Returns:
        The picture, (H, W, 3) uint8, and (H, W) uint8 labels by the title of their tile.
    """
    rgb = np.array(read_picture(ROOT / "demo" / "scenes" / f"{scene}.png").rgb)
    stages = load_model(RECIPE, WEIGHTS).stages(rgb)
    coarse = bilinear(np.asarray(stages["coarse"])[0], rgb.shape[:2])
    truth = Image.open(ROOT / "demo" / "labels" / f"{scene}.png")
    return rgb, {
        "coarse head": coarse.argmax(axis=0).astype(np.uint8),
        "PointRend": np.asarray(stages["labels"])[0].astype(np.uint8),
        "truth": np.asarray(truth, np.uint8),
    }


def picture(rgb: UInt8, labels: Mapping[str, UInt8], colours: UInt8) -> Image.Image:
    """Draw photo and label maps in one row and below each the outline where they differ, enlarged.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8 labels by title; the first two are compared, the last is the truth.
        colours: (C, 3) uint8.
    """
    first, second, truth = labels.values()
    window = window_of(first, second)
    if window is None:
        raise ValueError("the two answers do not differ")
    columns = {"picture": rgb} | {
        title: np.asarray((1 - OPACITY) * rgb + OPACITY * colours[values] + 0.5).astype(np.uint8)
        for title, values in labels.items()
    }
    width = 2 * EDGE + len(columns) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * EDGE + 2 * SIDE + GAP + 2 * TITLE), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(19)
    small = ImageFont.load_default(15)
    for place, (title, shown) in enumerate(columns.items()):
        x, y = EDGE + place * (SIDE + GAP), EDGE
        draw.text((x + 2, y + 2), title, INK, font)
        whole = np.asarray(Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        y += TITLE
        sheet.paste(Image.fromarray(framed(whole, window, (rgb.shape[0], rgb.shape[1]))), (x, y))
        part = Image.fromarray(window.of(shown))
        y += SIDE + GAP
        sheet.paste(part.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        y += SIDE
        if title in labels and labels[title] is not truth:
            wrong = 100 * window.of(labels[title] != truth).mean()
            draw.text((x + 2, y + 8), f"{wrong:.0f} % of these pixels wrong", INK, small)
        elif title == "picture":
            times = SIDE // window.height
            draw.text((x + 2, y + 8), f"the framed part, enlarged {times} times", INK, small)
    return sheet


def make(scene: str = SCENE) -> Image.Image:
    """Return the picture of a scene."""
    classes = load_recipe(RECIPE).classes
    return picture(*answers(scene), class_colours(classes))


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--scene", default=SCENE, help="stem of a file in demo/scenes")
    options = parser.parse_args()
    unpack()
    make(options.scene).save(options.out, quality=74, method=6)
    print(f"{options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
