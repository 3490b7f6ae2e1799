"""Training scenes on disk, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointrend_deploy.recipe.parts import InputSpec
from scripts.demo_training.instance_scene import boxes_of, make_instance_scene
from scripts.demo_training.material import load_material
from scripts.demo_training.training import varied

_MOST_INSTANCES: Final = 8
_NONE: Final = -1


@dataclass(frozen=True)
class Pool:
    """Composed scenes, mapped from their files.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        owners: (N, S, S) uint8, as in an InstanceScene.
        classes: (N, 8) int64, -1 past the last instance.
    """

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """What stands in one training picture.

    Attributes:
        boxes: (G, 4) float32 in pixels.
        classes: (G,) int64.
        owner: (S, S) uint8; i + 1 marks what can be seen of instance i.
    """

    boxes: Tensor
    classes: Tensor
    owner: Tensor


def scene_pool(photos: Path, objects: Path, out: Path, scenes: int) -> Pool:
    """Scenes of seeds 0..scenes-1, kept in ``out`` so that a second run finds them there."""
    names = ("images", "owners", "classes")
    paths = [out / f"instance_{name}_{scenes}.npy" for name in names]
    if not all(path.is_file() for path in paths):
        material = load_material(photos, objects, "train")
        print(f"composing {scenes} scenes", flush=True)
        made = [make_instance_scene(seed, material) for seed in range(scenes)]
        classes = np.full((scenes, _MOST_INSTANCES), _NONE, np.int64)
        for row, scene in zip(classes, made, strict=True):
            row[: len(scene.classes)] = scene.classes
        np.save(paths[0], np.stack([scene.image for scene in made]))
        np.save(paths[1], np.stack([scene.owner for scene in made]))
        np.save(paths[2], classes)
    return Pool(*(np.load(path, mmap_mode="r") for path in paths))


def random_batch(
    rng: np.random.Generator, pool: Pool, size: int, spec: InputSpec
) -> tuple[Tensor, list[Targets]]:
    """Scenes mirrored half the time, their colours varied as another light would.

    Returns:
        (size, 3, S, S) float32 normalised, and the targets of each picture.
    """
    pictures, targets = [], []
    for index in rng.integers(len(pool.images), size=size):
        way = -1 if rng.random() < 0.5 else 1
        pictures.append(varied(rng, pool.images[index][:, ::way]))
        owner = np.ascontiguousarray(pool.owners[index][:, ::way])
        classes = pool.classes[index]
        classes = classes[classes != _NONE]
        boxes = torch.from_numpy(boxes_of(owner, len(classes)))
        targets.append(Targets(boxes, torch.from_numpy(classes), torch.from_numpy(owner)))
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.pixel_mean, spec.pixel_std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last), targets
