"""Compose the held-out evaluation scenes of demo/ again, from seeds 1,000,000 onwards.

    python -m scripts.make_demo_scenes --out demo \
        --photos build/demo_material/photos --objects build/demo_material/objects

Photographs and objects are the ``test`` split: none was seen in training. The repository stores the
scenes without their noise, in OUT/noiseless/scenes.
"""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.recipe.semantic import load_recipe
from scripts.demo_training import noise
from scripts.demo_training.command_line import make_evaluation_scenes
from scripts.demo_training.compose import make_scene
from scripts.demo_training.material import Material
from scripts.demo_training.shipped import RECIPE, write_scene


def write(seeds: range, material: Material, folder: Path) -> None:
    """Compose the scenes of ``seeds``, their files numbered from 0 on; store them without noise."""
    recipe = load_recipe(RECIPE)
    made = {}
    for number, seed in enumerate(seeds):
        scene = make_scene(seed, material)
        write_scene(scene, recipe, folder, number)
        made[f"{number:04}"] = noise.drawn_scene(scene)
    noise.store(folder / "noiseless" / "scenes", made)


if __name__ == "__main__":
    make_evaluation_scenes(__doc__, write)
