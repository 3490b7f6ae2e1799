"""The files of the semantic model in demo/: read and write its scenes, score its weights.

demo/demo_semantic.safetensors         the model of export/demo_semantic.toml
demo/demo_semantic_dense.safetensors   the stride-4 head it is compared with
demo/scenes/0000.png  demo/labels/0000.png   pictures and indexed label maps, 256 x 256;
                                       the pictures are made from demo/noiseless/scenes
demo/results.json                      what ``measure`` found
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from PIL import Image

from pointrend_deploy.atomic import replacing, write_bytes
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.semantic.model import load_model
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe, check_recipe, load_recipe
from scripts.demo_training.compose import Scene
from scripts.demo_training.evaluate import figures, scores
from scripts.demo_training.noise import png

ROOT: Final = Path(__file__).resolve().parents[2]
DEMO: Final = ROOT / "demo"
RECIPE: Final = ROOT / "export" / "demo_semantic.toml"


def dense_recipe(recipe: Recipe) -> Recipe:
    """The same model with a dense head at stride 4 in place of the coarse and the point head."""
    head = CoarseHeadSpec(
        in_features=("p2", "p3", "p4"), channels=recipe.coarse_head.channels, common_stride=4
    )
    return check_recipe(
        msgspec.structs.replace(
            recipe, name=recipe.name + "_dense", coarse_head=head, point_head=None
        )
    )


def read_scenes(folder: Path = DEMO) -> list[Scene]:
    """The evaluation scenes, in the order of their numbers.

    Raises:
        DeployError: there are none, or a scene has no label map.
    """
    found = []
    for path in sorted((folder / "scenes").glob("*.png")):
        label = folder / "labels" / path.name
        if not label.is_file():
            raise DeployError(f"{path} has no label map {label}", "restore demo/ from the archive")
        with Image.open(path) as image, Image.open(label) as indices:
            found.append(Scene(np.array(image.convert("RGB")), np.array(indices)))
    if not found:
        raise DeployError(
            f"no scene in {folder / 'scenes'}", "python -m scripts.unpack_demo makes them"
        )
    return found


def write_scene(scene: Scene, recipe: Recipe, folder: Path, number: int) -> None:
    """Write ``scenes/NNNN.png`` and ``labels/NNNN.png``, an indexed PNG in the recipe's colours."""
    for kind in ("scenes", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "scenes" / f"{number:04}.png", png(scene.image))
    indexed = Image.fromarray(scene.label, mode="P")
    indexed.putpalette([value for colour in recipe.classes.colours for value in colour])
    with replacing(folder / "labels" / f"{number:04}.png") as path:
        indexed.save(path, format="PNG", optimize=True)


def measure(folder: Path = DEMO) -> dict[str, Any]:
    """Score the shipped weights on the shipped scenes.

    Returns:
        ``scenes`` (how many), ``band_px``, and ``rows``: ``coarse``, ``pointrend`` and
        ``dense_stride4``, each with ``miou``, ``boundary_iou`` and both by class, 0..1.
    """
    recipe = load_recipe(RECIPE)
    scenes = read_scenes(folder)
    model = load_model(recipe, folder / f"{recipe.name}.safetensors")
    pointrend = scores(model, scenes)
    other = dense_recipe(recipe)
    dense = scores(load_model(other, folder / f"{other.name}.safetensors"), scenes)
    rows = {
        "coarse": pointrend["coarse"],
        "pointrend": pointrend["final"],
        "dense_stride4": dense["final"],
    }
    names = recipe.classes.names
    return {
        "scenes": len(scenes),
        "band_px": 2,
        "rows": {row: figures(counted, names) for row, counted in rows.items()},
    }


def as_json(results: dict[str, Any]) -> bytes:
    """The results as they are kept in ``demo/results.json``: rounded to four places."""
    rounded = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 4))
    return (json.dumps(rounded, indent=2) + "\n").encode()
