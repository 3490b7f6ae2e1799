"""Generated scenes: their labels are exact, their splits share nothing, and training sees both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.semantic.model import build_model
from pointrend_deploy.recipe.semantic import load_recipe
from scripts.demo_training.compose import CLASSES, Scene, make_scene
from scripts.demo_training.losses import labels_at, semantic_loss, training_points
from scripts.demo_training.material import (
    OBJECTS,
    PHOTOS,
    Material,
    load_material,
    object_split,
)
from scripts.demo_training.shapes import SHAPES
from scripts.demo_training.shipped import RECIPE, dense_recipe, read_scenes, write_scene


def opaque_material() -> Material:
    """A grey photograph and square cut-outs, one red and one green, with hard edges."""
    photo = np.full((80, 120, 3), 128, np.uint8)
    colours = ((255, 0, 0), (0, 255, 0))
    cutouts = {
        name: (np.full((40, 40, 4), (*colour, 255), np.uint8),)
        for name, colour in zip(OBJECTS, colours, strict=True)
    }
    return Material((photo,), cutouts)


def test_a_seed_is_a_scene() -> None:
    material = opaque_material()
    first, again, other = (make_scene(seed, material, 96) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.label, other.label)


def test_labels_are_of_the_known_classes_and_all_occur() -> None:
    material = opaque_material()
    scenes = [make_scene(seed, material, 96) for seed in range(24)]
    seen = np.unique(np.stack([scene.label for scene in scenes]))
    assert seen.tolist() == list(range(len(CLASSES)))
    assert load_recipe(RECIPE).classes.names == CLASSES


def test_labels_say_where_the_colours_are() -> None:
    scenes = [make_scene(seed, opaque_material(), 128) for seed in range(12)]
    wrong, right = zip(*(_painted_elsewhere(scene) for scene in scenes), strict=True)
    assert sum(right) > 5000
    assert sum(wrong) < 0.01 * sum(right)
    moved = [Scene(scene.image, np.roll(scene.label, 2, axis=1)) for scene in scenes]
    assert sum(_painted_elsewhere(scene)[0] for scene in moved) > 0.02 * sum(right)


def _painted_elsewhere(scene: Scene) -> tuple[int, int]:
    """Pixels in a cut-out's pure colour that are labelled otherwise, and those labelled so.

    Pure red and pure green come from the two cut-outs alone, but for a shape's rare paint.
    """
    pixels, wrong, right = scene.image.astype(int), 0, 0
    for channel, name in enumerate(OBJECTS):
        rest = [c for c in range(3) if c != channel]
        painted = (pixels[..., channel] > 235) & (pixels[..., rest].max(axis=-1) < 20)
        marked = scene.label == CLASSES.index(name)
        wrong += int((painted & ~marked).sum())
        right += int((painted & marked).sum())
    return wrong, right


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_scale_with_the_canvas(name: str) -> None:
    small = SHAPES[name](np.random.default_rng(3), 128)
    large = SHAPES[name](np.random.default_rng(3), 512)
    assert small.shape == (128, 128)
    assert 0.0 <= small.min() <= small.max() <= 1.0
    assert large.sum() / small.sum() == pytest.approx(16.0, rel=0.15)
    reduced = large.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert ((reduced >= 0.5) != (small >= 0.5)).sum() < 0.25 * (small >= 0.5).sum()


def test_a_ring_has_a_hole_and_a_blob_has_none() -> None:
    def is_hollow(coverage: np.ndarray) -> bool:
        rows, columns = np.nonzero(coverage >= 0.5)
        return bool(coverage[round(rows.mean()), round(columns.mean())] < 0.5)

    whole = [seed for seed in range(40) if _clear_of_border(SHAPES["ring"], seed)]
    assert len(whole) >= 3
    assert all(is_hollow(SHAPES["ring"](np.random.default_rng(s), 256)) for s in whole)
    whole = [seed for seed in range(40) if _clear_of_border(SHAPES["blob"], seed)]
    assert len(whole) >= 3
    assert not any(is_hollow(SHAPES["blob"](np.random.default_rng(s), 256)) for s in whole)


def _clear_of_border(shape: object, seed: int) -> bool:
    coverage = shape(np.random.default_rng(seed), 256)  # type: ignore[operator]
    edge = np.concatenate([coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]])
    return bool(edge.max() == 0.0)


def test_splits_share_no_object_and_none_is_empty() -> None:
    for name, codes in OBJECTS.items():
        splits = {split: {c for c in codes if object_split(c) == split} for split in _SPLITS}
        assert all(splits.values()), name
        assert sum(map(len, splits.values())) == len(codes)
    assert set(PHOTOS.values()) == set(_SPLITS)
    assert not frozenset.intersection(*OBJECTS.values())


_SPLITS = ("train", "val", "test")


def test_skin_tones_stay_in_one_split_and_joined_sequences_stay_out(tmp_path: Path) -> None:
    photos, objects = _material_folders(tmp_path)
    hand = next(c for c in sorted(OBJECTS["hand"]) if _is_val(c))
    for suffix in ("", "-1f3fb", "-fe0f", "-200d-1f525"):
        _cutout(objects / f"{hand}{suffix}.webp")
    assert len(load_material(photos, objects, "val").objects["hand"]) == 3
    with pytest.raises(DeployError, match="no test object of class"):
        load_material(photos, objects, "test")


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    photos, objects = _material_folders(tmp_path)
    (photos / "china.jpg").unlink()
    with pytest.raises(DeployError, match=r"china\.jpg") as caught:
        load_material(photos, objects, "val")
    assert "fetch_demo_material.sh" in caught.value.hint


def _material_folders(folder: Path) -> tuple[Path, Path]:
    photos, objects = folder / "photos", folder / "objects"
    photos.mkdir()
    objects.mkdir()
    for name in PHOTOS:
        Image.new("RGB", (90, 70), (10, 120, 200)).save(photos / name)
    _cutout(objects / f"{next(c for c in sorted(OBJECTS['object']) if _is_val(c))}.webp")
    return photos, objects


def _is_val(code: str) -> bool:
    return object_split(code) == "val"


def _cutout(path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), (8, 8, 24, 20))
    image.save(path, lossless=True)


def test_a_written_scene_reads_back(tmp_path: Path) -> None:
    scene, recipe = make_scene(1, opaque_material(), 64), load_recipe(RECIPE)
    write_scene(scene, recipe, tmp_path, 0)
    (back,) = read_scenes(tmp_path)
    assert np.array_equal(back.image, scene.image)
    assert np.array_equal(back.label, scene.label)
    (tmp_path / "labels" / "0000.png").unlink()
    with pytest.raises(DeployError, match="no label map"):
        read_scenes(tmp_path)


def test_training_points_gather_where_the_coarse_map_is_unsure() -> None:
    """Left half certain, right half tied: three quarters of the points must lie on the right."""
    coarse = torch.zeros(2, 3, 16, 16)
    coarse[:, 0, :, :8] = 9.0
    torch.manual_seed(0)
    points = training_points(coarse, 400)
    assert points.shape == (2, 400, 2)
    assert points.min() >= 0.0
    assert points.max() < 1.0
    assert (points[:, :300, 0] > 0.43).all()
    assert 0.3 < float((points[:, 300:, 0] < 0.5).float().mean()) < 0.7


def test_labels_at_reads_the_pixel_a_point_lies_in() -> None:
    label = torch.arange(12).reshape(1, 3, 4)
    centres = torch.tensor([[[0.125, 1 / 6], [0.99, 0.99], [0.5, 0.34], [1.0, 1.0]]])
    assert labels_at(label, centres).tolist() == [[0, 11, 6, 11]]


def test_a_few_steps_on_one_scene_lower_the_loss_of_both_models() -> None:
    scene = make_scene(0, opaque_material(), 64)
    recipe = load_recipe(RECIPE)
    for spec in (recipe, dense_recipe(recipe)):
        assert (spec.point_head is None) == spec.name.endswith("_dense")
        torch.manual_seed(0)
        model = build_model(spec).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
        losses = [_step(model, scene, optimiser) for _ in range(8)]
        assert losses[-1] < 0.7 * losses[0], spec.name


def _step(model: torch.nn.Module, scene: Scene, optimiser: torch.optim.Optimizer) -> float:
    x = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 128 - 1
    label = torch.from_numpy(scene.label)[None].long()
    loss = semantic_loss(model, x, label, num_points=64)  # type: ignore[arg-type]
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())
