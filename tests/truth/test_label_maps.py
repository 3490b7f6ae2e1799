from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.truth import label_maps as dataset


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def picture(path: Path, hw: tuple[int, int] = (4, 6)) -> Path:
    return save(path, np.zeros((*hw, 3), np.uint8))


LABELS = np.arange(24, dtype=np.uint8).reshape(4, 6) % 5


def test_pictures_and_label_maps_of_one_name_belong_together(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png"):
        picture(tmp_path / "images" / name)
    for name in ("a.png", "b.png", "unused.png"):
        save(tmp_path / "labels" / name, LABELS)
    found = dataset.pairs(tmp_path / "images", tmp_path / "labels")
    assert [pair.name for pair in found] == ["a", "b"]
    assert [pair.labels.name for pair in found if pair.labels] == ["a.png", "b.png"]


def test_without_labels_pairs_have_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert dataset.pairs(tmp_path)[0].labels is None


def test_one_picture_and_one_label_map_of_any_name(tmp_path: Path) -> None:
    one = dataset.pairs(picture(tmp_path / "x.png"), save(tmp_path / "y.png", LABELS))[0]
    assert (one.picture.name, one.labels and one.labels.name) == ("x.png", "y.png")


def test_pictures_without_a_label_map_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.png")
    save(tmp_path / "labels" / "b.png", LABELS)
    with pytest.raises(DeployError, match=r"2 of 3 pictures have no label map.*: a, c"):
        dataset.pairs(tmp_path / "images", tmp_path / "labels")


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    with pytest.raises(DeployError, match="two pictures are called a"):
        dataset.pairs(tmp_path, tmp_path)
    assert [pair.name for pair in dataset.pairs(tmp_path)] == ["a.jpg", "a.png"]


@pytest.mark.parametrize("suffix", ["labelIds", "labelTrainIds"])
def test_the_cityscapes_layout(tmp_path: Path, suffix: str) -> None:
    for city in ("bonn", "ulm"):
        base = f"{city}_000000_000019"
        picture(tmp_path / "leftImg8bit" / "val" / city / f"{base}_leftImg8bit.png", (2, 4))
        where = tmp_path / "gtFine" / "val" / city
        save(where / f"{base}_gtFine_labelIds.png", np.array([[7, 33, 0, 26]] * 2, np.uint8))
        save(where / f"{base}_gtFine_color.png", np.zeros((2, 4, 3), np.uint8))
        if suffix == "labelTrainIds":
            save(
                where / f"{base}_gtFine_labelTrainIds.png",
                np.array([[0, 18, 255, 13]] * 2, np.uint8),
            )
    found = dataset.pairs(tmp_path / "leftImg8bit" / "val", tmp_path / "gtFine" / "val")
    assert [pair.name for pair in found] == ["bonn_000000_000019", "ulm_000000_000019"]
    assert found[0].labels is not None
    assert found[0].labels.stem.endswith(suffix)
    labels = dataset.read_labels(found[0].labels, 19, coding=found[0].coding)
    assert labels.tolist() == [[0, 18, 255, 13]] * 2


def test_cityscapes_ids_need_nineteen_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", LABELS)
    with pytest.raises(DeployError, match="19 classes; this recipe has 5"):
        dataset.read_labels(path, 5, coding="cityscapes ids")


def test_indexed_and_16_bit_label_maps(tmp_path: Path) -> None:
    indexed = Image.fromarray(LABELS, mode="P")
    indexed.putpalette([i for rgb in np.eye(3, dtype=int)[[0, 1, 2, 0, 1]] * 255 for i in rgb])
    indexed.save(tmp_path / "p.png")
    save(tmp_path / "w.png", LABELS.astype(np.uint16))
    for name in ("p.png", "w.png"):
        assert (dataset.read_labels(tmp_path / name, 5) == LABELS).all()


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", LABELS)
    with pytest.raises(DeployError, match="has label 4; the classes are 0 to 3, and 255"):
        dataset.read_labels(path, 4)
    assert dataset.read_labels(path, 4, ignore_label=4).max() == 4


def test_another_size_a_colour_picture_and_no_picture_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", LABELS)
    with pytest.raises(DeployError, match="is 4x6, its picture 6x4"):
        dataset.read_labels(path, 5, expected_hw=(6, 4))
    with pytest.raises(DeployError, match="colour picture"):
        dataset.read_labels(picture(tmp_path / "rgb.png"), 5)
    broken = tmp_path / "broken.png"
    broken.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DeployError, match="cannot read the label map"):
        dataset.read_labels(broken, 5)


def test_a_jpeg_is_no_label_map(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    with pytest.raises(DeployError, match="is a JPEG, whose compression changes labels") as caught:
        dataset.read_labels(path, 3)
    assert "PNG" in caught.value.hint
