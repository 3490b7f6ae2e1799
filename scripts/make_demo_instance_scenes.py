"""Compose the held-out instance scenes of demo/instance again, from seeds 1,000,000 onwards.

    python -m scripts.make_demo_instance_scenes --out demo/instance \
        --photos build/demo_material/photos --objects build/demo_material/objects

Photographs and objects are the ``test`` split, as those of scripts/make_demo_scenes.py. The
repository stores the scenes without their noise, in demo/noiseless/instance, which is written
beside OUT.
"""

from __future__ import annotations

from pathlib import Path

from scripts.demo_training import noise
from scripts.demo_training.command_line import make_evaluation_scenes
from scripts.demo_training.instance_scene import make_instance_scene
from scripts.demo_training.instance_shipped import write_scenes
from scripts.demo_training.material import Material


def write(seeds: range, material: Material, folder: Path) -> None:
    """Compose the scenes of ``seeds`` and write them with their annotations, and without noise."""
    scenes = [make_instance_scene(seed, material) for seed in seeds]
    write_scenes(scenes, folder)
    made = {f"{number:04}": noise.drawn_scene(scene) for number, scene in enumerate(scenes)}
    noise.store(folder.parent / "noiseless" / folder.name, made)


if __name__ == "__main__":
    make_evaluation_scenes(__doc__, write)
