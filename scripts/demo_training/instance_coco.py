"""COCO annotations of instance scenes, and the AP of a model's boxes, masks and boundaries.

Format: https://cocodataset.org/#format-data. Boundary AP: Cheng et al. 2021, with the band of
0.02 of the diagonal that the paper evaluates with (7 pixels of 256 x 256), and one of 2 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.run.instance.masks import encode
from pointrend_deploy.truth.annotations import need_evaluator
from scripts.demo_training.instance_scene import InstanceScene

STANDARD_BAND: Final = 0.02
NARROW_BAND_PX: Final = 2


def as_coco(
    scenes: Sequence[InstanceScene], files: Sequence[str], recipe: InstanceRecipe
) -> dict[str, Any]:
    """A COCO data set of scenes; image ids count from 1, masks are compressed RLE, no crowds."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (scene, file) in enumerate(zip(scenes, files, strict=True), 1):
        height, width = scene.owner.shape
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        for instance, ((x1, y1, x2, y2), label) in enumerate(
            zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True)
        ):
            mask = scene.mask(instance)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": recipe.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": rle(mask),
                }
            )
    categories = [
        {"id": number, "name": name}
        for number, name in zip(recipe.category_ids, recipe.classes.names, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run-length encoding of an (H, W) bool mask."""
    height, width = mask.shape
    return dict(encode((0, 0, mask), (height, width)))


def detections(
    model: InstanceModel, images: Sequence[NDArray[np.uint8]], first_id: int = 1
) -> list[dict[str, Any]]:
    """COCO results of a model: image ids count from ``first_id``."""
    found = []
    for number, image in enumerate(images, first_id):
        stages = model.stages(image)
        rows = zip(
            stages["output_boxes"].tolist(),
            stages["output_scores"].tolist(),
            stages["output_classes"].tolist(),
            stages["masks"].numpy(),
            strict=True,
        )
        for (x1, y1, x2, y2), score, label, mask in rows:
            found.append(
                {
                    "image_id": number,
                    "category_id": model.recipe.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                    "segmentation": rle(mask),
                }
            )
    return found


def average_precision(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """AP over IoU 0.50:0.95 of detections, at most 100 a picture, 0..1.

    Args:
        truth: a COCO data set of pictures of one size.
        results: as from :func:`detections`; not changed.

    Returns:
        ``box``, ``mask``, ``boundary`` (band of 0.02 of the diagonal), ``boundary_2px``, each a
        number, and ``mask_by_class``, ``boundary_by_class``: class name -> AP, NaN without a
        ground truth.

    Raises:
        DeployError: faster-coco-eval is not installed.
    """
    need_evaluator()
    from faster_coco_eval import COCO, COCOeval_faster

    image = truth["images"][0]
    narrow = NARROW_BAND_PX / math.hypot(image["height"], image["width"])
    kinds = {
        "box": ("bbox", STANDARD_BAND),
        "mask": ("segm", STANDARD_BAND),
        "boundary": ("boundary", STANDARD_BAND),
        "boundary_2px": ("boundary", narrow),
    }
    names = [category["name"] for category in truth["categories"]]
    if not results:
        none: dict[str, Any] = dict.fromkeys(kinds, 0.0)
        by_class = {f"{kind}_by_class": dict.fromkeys(names, 0.0) for kind in kinds}
        return none | {key: by_class[key] for key in ("mask_by_class", "boundary_by_class")}
    found: dict[str, Any] = {}
    for kind, (iou_type, band) in kinds.items():
        ground = COCO(_copied(truth))
        evaluation = COCOeval_faster(
            ground,
            ground.loadRes([dict(row) for row in results]),
            iou_type,
            boundary_dilation_ratio=band,
            boundary_cpu_count=1,
            rle_iou_max_workers=1,
            print_function=_quietly,
        )
        evaluation.evaluate()
        evaluation.accumulate()
        precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
        per_class = precision.mean(axis=(0, 1))
        found[kind] = float(np.nanmean(per_class))
        if kind in ("mask", "boundary"):
            found[f"{kind}_by_class"] = dict(zip(names, per_class.tolist(), strict=True))
    return found


def _copied(truth: dict[str, Any]) -> dict[str, Any]:
    return {key: [dict(row) for row in rows] for key, rows in truth.items()}


def _quietly(*_: object) -> None:
    """The evaluator prints its tables; the figures are returned instead."""
