"""Instance scenes: exact masks, everything to be seen; their COCO form and what AP makes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance_check import load_instance_recipe
from scripts.demo_training.instance_coco import as_coco, average_precision, rle
from scripts.demo_training.instance_scene import THINGS, InstanceScene, make_instance_scene
from scripts.demo_training.instance_shipped import RECIPE, read_truth, write_scenes
from scripts.demo_training.material import OBJECTS, Material
from scripts.demo_training.shapes import SHAPES

mask_tools = pytest.importorskip("pycocotools.mask")


def opaque_material() -> Material:
    """A grey photograph and square cut-outs, one red and one green, with hard edges."""
    colours = ((255, 0, 0), (0, 255, 0))
    cutouts = {
        name: (np.full((40, 40, 4), (*colour, 255), np.uint8),)
        for name, colour in zip(OBJECTS, colours, strict=True)
    }
    return Material((np.full((80, 120, 3), 128, np.uint8),), cutouts)


@pytest.fixture(scope="module")
def scenes() -> list[InstanceScene]:
    return [make_instance_scene(seed, opaque_material(), 128) for seed in range(10)]


def decoded(annotation: dict[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(mask_tools.decode(annotation["segmentation"]), np.bool_)


def test_a_seed_is_a_scene(scenes: list[InstanceScene]) -> None:
    again = make_instance_scene(3, opaque_material(), 128)
    for name in ("image", "owner", "classes"):
        assert np.array_equal(getattr(again, name), getattr(scenes[3], name))
    assert not np.array_equal(again.owner, scenes[4].owner)


def test_every_instance_can_be_seen_and_every_class_occurs(scenes: list[InstanceScene]) -> None:
    for scene in scenes:
        seen = np.bincount(scene.owner.ravel(), minlength=len(scene.classes) + 1)[1:]
        assert len(seen) == len(scene.classes) <= 6
        assert seen.min() >= 200 / 4, "200 pixels of a 256-pixel scene"
    classes = np.concatenate([scene.classes for scene in scenes])
    assert np.unique(classes).tolist() == list(range(len(THINGS)))
    assert load_instance_recipe(RECIPE).classes.names == THINGS == (*SHAPES, *OBJECTS)


def test_boxes_are_tight(scenes: list[InstanceScene]) -> None:
    for scene in scenes:
        for instance, box in enumerate(scene.boxes.astype(int)):
            x1, y1, x2, y2 = box
            mask = scene.mask(instance)
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            inside = mask[y1:y2, x1:x2]
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_masks_say_where_the_colours_are(scenes: list[InstanceScene]) -> None:
    wrong, right = zip(*(_painted_elsewhere(s, s.owner) for s in scenes), strict=True)
    assert sum(right) > 2000
    assert sum(wrong) < 0.01 * sum(right)
    moved = [_painted_elsewhere(s, np.roll(s.owner, 2, axis=1)) for s in scenes]
    assert sum(w for w, _ in moved) > 0.02 * sum(right)


def _painted_elsewhere(scene: InstanceScene, owner: NDArray[np.uint8]) -> tuple[int, int]:
    """Pixels in a cut-out's pure colour that belong to another class, and those that do not."""
    pixels, wrong, right = scene.image.astype(int), 0, 0
    class_of = np.concatenate(([-1], scene.classes))[owner]
    for channel, name in enumerate(OBJECTS):
        rest = [c for c in range(3) if c != channel]
        painted = (pixels[..., channel] > 235) & (pixels[..., rest].max(axis=-1) < 20)
        wrong += int((painted & (class_of != THINGS.index(name))).sum())
        right += int((painted & (class_of == THINGS.index(name))).sum())
    return wrong, right


def test_annotations_hold_the_masks_as_other_tools_read_them(scenes: list[InstanceScene]) -> None:
    recipe = load_instance_recipe(RECIPE)
    truth = as_coco(scenes, [f"{n}.png" for n in range(len(scenes))], recipe)
    assert [c["name"] for c in truth["categories"]] == list(THINGS)
    rows = iter(truth["annotations"])
    for number, scene in enumerate(scenes, 1):
        for instance, label in enumerate(scene.classes):
            row = next(rows)
            mask = decoded(row)
            assert (row["image_id"], row["category_id"]) == (number, recipe.category_ids[label])
            assert np.array_equal(mask, scene.mask(instance))
            assert row["bbox"] == mask_tools.toBbox(row["segmentation"]).tolist()
            assert row["area"] == mask.sum()
            assert row["iscrowd"] == 0
    assert next(rows, None) is None


def perfect(truth: dict[str, Any]) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: row[key] for key in keys}, "score": 0.9} for row in truth["annotations"]]


def test_right_detections_reach_ap_1_and_each_error_lowers_its_figure(
    scenes: list[InstanceScene],
) -> None:
    pytest.importorskip("faster_coco_eval")
    truth = as_coco(scenes, [str(n) for n in range(len(scenes))], load_instance_recipe(RECIPE))
    kinds = ("box", "mask", "boundary", "boundary_2px")
    kept = copy.deepcopy(truth)
    right = average_precision(truth, perfect(truth))
    assert truth == kept, "the evaluator may write into a copy alone"
    assert [right[kind] for kind in kinds] == [1.0] * 4
    assert set(right["mask_by_class"].values()) == {1.0}

    moved = perfect(truth)
    for row in moved:
        row["segmentation"] = rle(np.roll(decoded(row), 2, axis=0))
    shifted = average_precision(truth, moved)
    assert shifted["box"] == 1.0
    assert shifted["boundary_2px"] < shifted["boundary"] < shifted["mask"] < 0.95

    renamed = perfect(truth)
    for row in renamed:
        row["category_id"] = row["category_id"] % len(THINGS) + 1
    wrong_class = average_precision(truth, renamed)
    assert max(wrong_class[kind] for kind in kinds) < 0.2

    none = average_precision(truth, [])
    assert [none[kind] for kind in kinds] == [0.0] * 4
    assert set(none) == set(right)


def test_written_scenes_read_back(tmp_path: Path, scenes: list[InstanceScene]) -> None:
    write_scenes(scenes[:3], tmp_path)
    truth, pictures = read_truth(tmp_path)
    assert [image["file_name"] for image in truth["images"]] == [
        f"scenes/{number:04}.png" for number in range(3)
    ]
    for picture, scene in zip(pictures, scenes, strict=False):
        assert np.array_equal(picture, scene.image)
    assert truth == json.loads(json.dumps(truth))
    (tmp_path / "scenes" / "0001.png").unlink()
    with pytest.raises(DeployError, match="0001"):
        read_truth(tmp_path)
