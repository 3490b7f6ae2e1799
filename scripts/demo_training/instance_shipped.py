"""The files of the instance model in demo/: weights, scenes with COCO annotations, figures.

demo/demo_instance.safetensors            the model of export/demo_instance.toml
demo/demo_instance_standard.safetensors   the same trunk with Mask R-CNN's standard mask head;
                                          made from the trunk and the head alone
demo/instance/annotations.json            COCO instances of demo/instance/scenes/0000.png ...,
                                          which are made from demo/noiseless/instance
demo/instance_results.json                what ``measure`` found
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend_deploy.atomic import write_bytes
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import InstanceModel, load_instance_model
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from scripts.demo_training.instance_coco import NARROW_BAND_PX, as_coco, average_precision
from scripts.demo_training.instance_coco import detections as coco_detections
from scripts.demo_training.instance_scene import InstanceScene
from scripts.demo_training.noise import png
from scripts.demo_training.shipped import DEMO, ROOT

RECIPE: Final = ROOT / "export" / "demo_instance.toml"
STANDARD_RECIPE: Final = ROOT / "export" / "demo_instance_standard.toml"
INSTANCE: Final = DEMO / "instance"


def load_shipped(recipe: Path, folder: Path = DEMO) -> InstanceModel:
    """The model of a recipe with the weights of its name in ``folder``."""
    spec = load_instance_recipe(recipe)
    return load_instance_model(spec, folder / f"{spec.name}.safetensors")


def write_scenes(scenes: list[InstanceScene], folder: Path = INSTANCE) -> None:
    """Write ``scenes/NNNN.png`` and ``annotations.json``."""
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    files = [f"scenes/{number:04}.png" for number in range(len(scenes))]
    for scene, file in zip(scenes, files, strict=True):
        write_bytes(folder / file, png(scene.image))
    truth = as_coco(scenes, files, load_instance_recipe(RECIPE))
    write_bytes(folder / "annotations.json", (json.dumps(truth) + "\n").encode())


def read_truth(folder: Path = INSTANCE) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """The COCO annotations and the pictures they name, (H, W, 3) uint8 RGB each, in order.

    Raises:
        DeployError: the annotations or a picture cannot be read.
    """
    try:
        truth: dict[str, Any] = json.loads((folder / "annotations.json").read_text())
        pictures = []
        for image in truth["images"]:
            with Image.open(folder / image["file_name"]) as picture:
                pictures.append(np.array(picture.convert("RGB")))
    except (OSError, ValueError, KeyError) as error:
        raise DeployError(
            f"cannot read the scenes of {folder}: {error}",
            "python -m scripts.unpack_demo makes them",
        ) from error
    return truth, pictures


def measure(folder: Path = DEMO) -> dict[str, Any]:
    """Score both shipped models on the shipped scenes.

    Returns:
        ``scenes`` and ``instances`` (how many), ``narrow_band_px``, and ``rows``: ``standard`` and
        ``pointrend``, each with what
        :func:`~scripts.demo_training.instance_coco.average_precision` finds.

    Raises:
        DeployError: the two models do not give the same boxes, scores and classes.
    """
    truth, pictures = read_truth(folder / "instance")
    found = {
        row: coco_detections(load_shipped(recipe, folder), pictures)
        for row, recipe in (("standard", STANDARD_RECIPE), ("pointrend", RECIPE))
    }
    without_masks = [
        [{key: row[key] for key in row if key != "segmentation"} for row in rows]
        for rows in found.values()
    ]
    if without_masks[0] != without_masks[1]:
        raise DeployError(
            "the two models do not give the same boxes, so their masks cannot be compared",
            "both files must come from one training run",
        )
    return {
        "scenes": len(pictures),
        "instances": len(truth["annotations"]),
        "narrow_band_px": NARROW_BAND_PX,
        "rows": {row: average_precision(truth, results) for row, results in found.items()},
    }
