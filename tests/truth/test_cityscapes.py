"""Folders as Cityscapes lays them out, made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.truth.cityscapes import THINGS, read_cityscapes
from pointrend_deploy.truth.coco import compressed_counts
from tests.fixtures.instance_data import recipe

CITY = recipe(classes=InstanceClassesSpec(names=tuple(THINGS)))
HW = (40, 60)


def ids(**things: tuple[slice, slice]) -> np.ndarray:
    """Road (7) with rectangles of the ids named ``v<id>``."""
    values = np.full(HW, 7, np.uint16)
    for name, where in things.items():
        values[where] = int(name[1:])
    return values


CAR, PERSON = (slice(5, 15), slice(8, 28)), (slice(20, 35), slice(40, 45))
GROUP, CARAVAN = (slice(0, 4), slice(50, 60)), (slice(36, 40), slice(0, 9))


def layout(folder: Path, maps: dict[str, np.ndarray]) -> tuple[Path, Path]:
    images, labels = folder / "leftImg8bit" / "val", folder / "gtFine" / "val"
    for stem, values in maps.items():
        city = stem.split("_")[0]
        for root in (images, labels):
            (root / city).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", HW[::-1]).save(images / city / f"{stem}_leftImg8bit.png")
        Image.fromarray(values).save(labels / city / f"{stem}_gtFine_instanceIds.png")
        Image.fromarray(values.astype(np.uint8)).save(labels / city / f"{stem}_gtFine_labelIds.png")
    return labels, images


def test_objects_groups_and_everything_else(tmp_path: Path) -> None:
    values = ids(v26001=CAR, v24000=PERSON, v24=GROUP, v29002=CARAVAN)
    labels, images = layout(tmp_path, {"ulm_000_019": values, "bonn_000_001": ids()})
    truth = read_cityscapes(labels, images, CITY)
    assert [each.name for each in truth.pictures] == ["bonn_000_001", "ulm_000_019"]
    assert [each.hw for each in truth.pictures] == [HW, HW]
    found = {(each.label, each.crowd): each for each in truth.objects}
    assert set(found) == {(2, False), (0, False), (0, True)}
    assert {each.image_id for each in truth.objects} == {2}
    car = found[2, False]
    assert (car.box, car.area) == ((8.0, 5.0, 20.0, 10.0), 200.0)
    counts = compressed_counts(car.segmentation["counts"])  # type: ignore[call-overload]
    assert counts is not None
    mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(HW[::-1]).T
    np.testing.assert_array_equal(mask.astype(bool), values == 26001)


def test_every_thing_is_the_class_of_its_name(tmp_path: Path) -> None:
    values = np.zeros(HW, np.uint16)
    for row, number in enumerate(THINGS.values()):
        values[4 * row : 4 * row + 3] = 1000 * number + row
    labels, images = layout(tmp_path, {"ulm_0_0": values})
    backwards = recipe(classes=InstanceClassesSpec(names=tuple(reversed(THINGS))))
    for known in (CITY, backwards):
        found = read_cityscapes(labels, images, known).objects
        names = [known.classes.names[each.label] for each in found]
        assert names == list(THINGS)


def test_one_class_alone_and_label_maps_without_pictures(tmp_path: Path) -> None:
    values = ids(v26001=CAR, v24000=PERSON)
    labels, images = layout(tmp_path, {"ulm_0_0": values, "bonn_0_0": values})
    (images / "bonn" / "bonn_0_0_leftImg8bit.png").unlink()
    truth = read_cityscapes(labels, images, recipe(classes=InstanceClassesSpec(names=("person",))))
    assert len(truth.pictures) == len(truth.objects) == 1


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    labels, images = layout(tmp_path, {"ulm_0_0": ids(v26001=CAR)})
    with pytest.raises(DeployError, match="finds disc, square, bar, which Cityscapes") as caught:
        read_cityscapes(labels, images, recipe())
    assert "--coco" in caught.value.hint


def test_a_picture_without_its_label_map_is_named(tmp_path: Path) -> None:
    labels, images = layout(tmp_path, {"ulm_0_0": ids(v26001=CAR), "ulm_0_1": ids()})
    (labels / "ulm" / "ulm_0_1_gtFine_instanceIds.png").unlink()
    with pytest.raises(DeployError, match=r"1 of 2 pictures have no .*: ulm_0_1"):
        read_cityscapes(labels, images, CITY)


def test_empty_folders(tmp_path: Path) -> None:
    labels, images = layout(tmp_path, {"ulm_0_0": ids(v26001=CAR)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeployError, match=r"no .*_gtFine_instanceIds.png in"):
        read_cityscapes(tmp_path / "empty", images, CITY)
    with pytest.raises(DeployError, match=r"no .*_leftImg8bit.png in"):
        read_cityscapes(labels, tmp_path / "empty", CITY)


def test_a_set_without_objects_is_refused(tmp_path: Path) -> None:
    labels, images = layout(tmp_path, {"berlin_0_0": ids()})
    with pytest.raises(DeployError, match="nothing to score against"):
        read_cityscapes(labels, images, CITY)


def test_a_map_of_another_size_or_kind(tmp_path: Path) -> None:
    labels, images = layout(tmp_path, {"ulm_0_0": ids(v26001=CAR)})
    where = labels / "ulm" / "ulm_0_0_gtFine_instanceIds.png"
    Image.fromarray(ids(v26001=CAR)[:, :50]).save(where)
    with pytest.raises(DeployError, match="ulm_0_0 is 40x60, its annotations say 40x50"):
        read_cityscapes(labels, images, CITY)
    Image.new("RGB", HW[::-1]).save(where)
    with pytest.raises(DeployError, match="not a map of instance ids: its pixels are of type RGB"):
        read_cityscapes(labels, images, CITY)
    where.write_bytes(b"torn")
    with pytest.raises(DeployError, match="cannot read the label map"):
        read_cityscapes(labels, images, CITY)
