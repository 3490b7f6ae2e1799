"""Compose the held-out evaluation scenes of demo/ again, from seeds 1,000,000 onwards.

    python -m scripts.make_demo_scenes --out demo \
        --photos build/demo_material/photos --objects build/demo_material/objects

Photographs and objects are the ``test`` split: none was seen in training. The repository stores the
scenes without their noise, in OUT/noiseless/scenes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.semantic import load_recipe
from scripts.demo_training import noise
from scripts.demo_training.compose import make_scene
from scripts.demo_training.material import load_material
from scripts.demo_training.shipped import RECIPE, write_scene

FIRST_SEED = 1_000_000
SCENES = 36


def main() -> None:
    """Read the command line; exit 1 with a message where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=SCENES)
    args = parser.parse_args()
    try:
        recipe = load_recipe(RECIPE)
        material = load_material(args.photos, args.objects, "test")
        made = {}
        for number in range(args.scenes):
            scene = make_scene(FIRST_SEED + number, material)
            write_scene(scene, recipe, args.out, number)
            made[f"{number:04}"] = noise.drawn_scene(scene)
        noise.store(args.out / "noiseless" / "scenes", made)
    except DeployError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
