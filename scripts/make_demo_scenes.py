"""Compose the held-out evaluation scenes of demo/ again, from seeds 1,000,000 onwards.

    python -m scripts.make_demo_scenes --out demo \
        --photos build/demo_material/photos --objects build/demo_material/objects

Photographs and objects are the ``test`` split: none was seen in training.
"""

from __future__ import annotations

from pathlib import Path

from pointrend_deploy.recipe import load_recipe
from scripts.demo_training.command_line import make_evaluation_scenes
from scripts.demo_training.compose import make_scene
from scripts.demo_training.material import Material
from scripts.demo_training.shipped import RECIPE, write_scene


def write(seeds: range, material: Material, folder: Path) -> None:
    """Compose the scenes of ``seeds`` and number their files from 0 on."""
    recipe = load_recipe(RECIPE)
    for number, seed in enumerate(seeds):
        write_scene(make_scene(seed, material), recipe, folder, number)


if __name__ == "__main__":
    make_evaluation_scenes(__doc__, write)
