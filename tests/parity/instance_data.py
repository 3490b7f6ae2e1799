"""A generated set in COCO's format, and detections made from its truth with known mistakes."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointrend_deploy.recipe.instance import (
    BoxHeadSpec,
    CoarseMaskHeadSpec,
    InstanceClassesSpec,
    InstancePointHeadSpec,
    InstanceRecipe,
    RPNSpec,
)
from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, InputSpec
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.instance.masks import encode

NAMES = ("disc", "square", "bar")
IDS = (3, 7, 11)
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def recipe(**changes: Any) -> InstanceRecipe:
    """Three classes whose category ids have gaps."""
    fields: dict[str, Any] = {
        "name": "tiny_instance",
        "input": InputSpec(channel_order="RGB", pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)),
        "classes": InstanceClassesSpec(names=NAMES, category_ids=IDS),
        "backbone": EfficientNetLiteSpec(),
        "fpn": FPNSpec(in_features=("res2", "res3", "res4"), out_channels=32),
        "rpn": RPNSpec(in_features=("p2", "p3", "p4", "p5"), anchor_sizes=((16.0,),) * 4),
        "box_head": BoxHeadSpec(in_features=("p2", "p3", "p4", "p5"), detections=20),
        "mask_head": CoarseMaskHeadSpec(),
        "point_head": InstancePointHeadSpec(),
    }
    return InstanceRecipe(**{**fields, **changes})


@dataclass(frozen=True)
class Thing:
    label: int
    mask: Mask
    crowd: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        rows, columns = np.nonzero(self.mask)
        return (
            float(columns.min()),
            float(rows.min()),
            float(columns.max()) + 1,
            float(rows.max()) + 1,
        )


def drawn(label: int, hw: tuple[int, int], y: float, x: float, r: float) -> Thing:
    rows, columns = np.mgrid[: hw[0], : hw[1]] + 0.5
    dy, dx = np.abs(rows - y), np.abs(columns - x)
    masks = (dy**2 + dx**2 <= r**2, np.maximum(dy, dx) <= r, (dy <= r / 3) & (dx <= r))
    return Thing(label, masks[label])


def scene(seed: int, hw: tuple[int, int] = (96, 128), count: int = 4) -> list[Thing]:
    """Things that do not leave the picture; they may overlap, as annotated objects do."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        r = rng.uniform(6, 24)
        y, x = rng.uniform(r, hw[0] - r), rng.uniform(r, hw[1] - r)
        found.append(drawn(int(rng.integers(3)), hw, y, x, r))
    return found


def run_lengths(mask: Mask) -> dict[str, Any]:
    return dict(encode((0, 0, mask), (mask.shape[0], mask.shape[1])))


def uncompressed(mask: Mask) -> dict[str, Any]:
    flat = np.concatenate(([False], mask.T.reshape(-1)))
    changes = np.flatnonzero(flat[1:] != flat[:-1]).tolist()
    ends = [*changes, mask.size]
    counts = [ends[0], *(b - a for a, b in itertools.pairwise(ends))]
    return {"size": list(mask.shape), "counts": counts}


def annotation(number: int, image_id: int, thing: Thing) -> dict[str, Any]:
    """As COCO writes it; every third mask uncompressed."""
    x1, y1, x2, y2 = thing.box
    form = uncompressed if thing.crowd or number % 3 == 0 else run_lengths
    return {
        "id": number,
        "image_id": image_id,
        "category_id": IDS[thing.label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(thing.mask.sum()),
        "iscrowd": int(thing.crowd),
        "segmentation": form(thing.mask),
    }


def table(scenes: list[list[Thing]], files: list[str] | None = None) -> dict[str, Any]:
    images, annotations = [], []
    for number, things in enumerate(scenes):
        hw = things[0].mask.shape if things else (96, 128)
        file = files[number] if files else f"{number:03}.png"
        images.append({"id": 10 + number, "file_name": file, "height": hw[0], "width": hw[1]})
        for thing in things:
            annotations.append(annotation(len(annotations), 10 + number, thing))
    categories = [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def painted(things: list[Thing], hw: tuple[int, int] = (96, 128)) -> np.ndarray:
    rgb = np.full((*hw, 3), 40, np.uint8)
    for thing in things:
        rgb[thing.mask] = 90 + 50 * np.eye(3, dtype=np.uint8)[thing.label] * 3
    return rgb


def written(
    folder: Path, scenes: list[list[Thing]], content: dict[str, Any] | None = None
) -> tuple[Path, Path]:
    """The annotation file and the folder of pictures of some scenes."""
    images = folder / "images"
    content = table(scenes) if content is None else content
    for entry, things in zip(content["images"], scenes, strict=True):
        path = images / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        hw = things[0].mask.shape if things else (96, 128)
        Image.fromarray(painted(things, hw)).save(path)
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path, images


def found(things: list[Thing], scores: list[float] | None = None) -> Instances:
    """Detections that are the truth itself."""
    things = [thing for thing in things if not thing.crowd]
    hw = things[0].mask.shape if things else (96, 128)
    patches = []
    for thing in things:
        x1, y1, x2, y2 = (int(v) for v in thing.box)
        patches.append((y1, x1, thing.mask[y1:y2, x1:x2]))
    return Instances(
        boxes=np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
        scores=np.array(scores or np.linspace(0.9, 0.5, len(things)), np.float32),
        classes=np.array([thing.label for thing in things], np.int64),
        hw=(hw[0], hw[1]),
        patches=tuple(patches),
    )
