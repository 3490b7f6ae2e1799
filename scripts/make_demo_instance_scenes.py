"""Compose the held-out instance scenes of demo/instance again, from seeds 1,000,000 onwards.

    python -m scripts.make_demo_instance_scenes --out demo/instance \
        --photos build/demo_material/photos --objects build/demo_material/objects

Photographs and objects are the ``test`` split: none was seen in training. The repository stores the
scenes without their noise, in demo/noiseless/instance, which is written beside OUT.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pointrend_deploy.errors import DeployError
from scripts.demo_training import noise
from scripts.demo_training.instance_scene import make_instance_scene
from scripts.demo_training.instance_shipped import write_scenes
from scripts.demo_training.material import load_material

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
        material = load_material(args.photos, args.objects, "test")
        seeds = range(FIRST_SEED, FIRST_SEED + args.scenes)
        scenes = [make_instance_scene(seed, material) for seed in seeds]
        write_scenes(scenes, args.out)
        made = {f"{n:04}": noise.drawn_scene(scene) for n, scene in enumerate(scenes)}
        noise.store(args.out.parent / "noiseless" / args.out.name, made)
    except DeployError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
