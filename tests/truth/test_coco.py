"""Annotation files as they come: right ones in every form, and wrong ones with words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.run.instance.masks import encode
from pointrend_deploy.truth.coco import compressed_counts, read_coco
from tests.fixtures.instance_data import NAMES, Thing, drawn, recipe, scene, table, written

Table = dict[str, Any]


def scenes() -> list[list[Thing]]:
    crowd = Thing(1, drawn(1, (96, 128), 80, 100, 14).mask, crowd=True)
    return [scene(0), [*scene(1), crowd], []]


def test_a_sound_file_is_read_whole(tmp_path: Path) -> None:
    path, images = written(tmp_path, scenes())
    truth = read_coco(path, images, recipe())
    assert truth.source == "annotations.json"
    assert [each.name for each in truth.pictures] == ["000.png", "001.png", "002.png"]
    assert [each.image_id for each in truth.pictures] == [10, 11, 12]
    assert all(each.path.is_file() and each.hw == (96, 128) for each in truth.pictures)
    drawn_things = [thing for things in scenes() for thing in things]
    assert [each.label for each in truth.objects] == [thing.label for thing in drawn_things]
    assert [each.area for each in truth.objects] == [thing.mask.sum() for thing in drawn_things]
    assert [each.crowd for each in truth.objects] == [False] * 8 + [True]
    assert truth.classes_left_out == ()


def test_masks_of_every_form_and_what_follows_from_them(tmp_path: Path) -> None:
    """Polygon, compressed and uncompressed run lengths of one rectangle; no bbox, no area."""
    mask = np.zeros((96, 128), np.bool_)
    mask[20:40, 30:90] = True
    content = table([[Thing(1, mask)] * 3])
    polygon = [[30, 20, 90, 20, 90, 40, 30, 40]]
    for entry in content["annotations"]:
        del entry["bbox"], entry["area"]
    content["annotations"][2]["segmentation"] = polygon
    assert isinstance(content["annotations"][0]["segmentation"]["counts"], list)
    assert isinstance(content["annotations"][1]["segmentation"]["counts"], str)
    path, images = written(tmp_path, [[Thing(1, mask)]], content)
    truth = read_coco(path, images, recipe())
    assert [each.area for each in truth.objects] == [1200.0] * 3
    assert [each.box for each in truth.objects] == [(30.0, 20.0, 60.0, 20.0)] * 3


def test_file_names_with_sub_folders(tmp_path: Path) -> None:
    content = table([scene(0), scene(1)], ["train/a/1.png", "val\\2.png"])
    for entry in content["images"]:
        path = tmp_path / "images" / entry["file_name"].replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 96)).save(path)
    (tmp_path / "a.json").write_text(json.dumps(content))
    truth = read_coco(tmp_path / "a.json", tmp_path / "images", recipe())
    assert [each.name for each in truth.pictures] == ["train/a/1.png", "val/2.png"]


def test_a_rotated_picture_is_compared_upright(tmp_path: Path) -> None:
    path, images = written(tmp_path, [scene(0)], table([scene(0)], ["0.jpg"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 128)).save(images / "0.jpg", exif=exif)  # upright it is 96 high
    assert read_coco(path, images, recipe()).pictures[0].hw == (96, 128)
    Image.new("RGB", (128, 96)).save(images / "0.jpg", exif=exif)
    with pytest.raises(DeployError, match=r"0.jpg is 128x96, its annotations say 96x128") as caught:
        read_coco(path, images, recipe())
    assert "EXIF" in caught.value.hint


def test_an_unreadable_picture_is_left_to_the_reader(tmp_path: Path) -> None:
    path, images = written(tmp_path, [scene(0), scene(1)])
    (images / "001.png").write_bytes(b"torn")
    assert len(read_coco(path, images, recipe()).pictures) == 2


def test_classes_the_file_does_not_know_are_told(tmp_path: Path) -> None:
    content = table([[thing for thing in scene(3, count=9) if thing.label != 2]])
    content["categories"] = content["categories"][:2]
    path, images = written(tmp_path, [scene(3)], content)
    assert read_coco(path, images, recipe()).classes_left_out == ("bar",)


def test_names_agree_whatever_their_case(tmp_path: Path) -> None:
    content = table([scene(0)])
    content["categories"][0]["name"] = " Disc "
    content["categories"].append({"id": 99, "name": "never used"})
    path, images = written(tmp_path, [scene(0)], content)
    assert read_coco(path, images, recipe()).classes_left_out == ()


def test_ids_without_gaps_are_the_default(tmp_path: Path) -> None:
    content = table([scene(0)])
    for number, category in enumerate(content["categories"], 1):
        for entry in content["annotations"]:
            if entry["category_id"] == category["id"]:
                entry["category_id"] = -number
        category["id"] = number
    for entry in content["annotations"]:
        entry["category_id"] *= -1
    path, images = written(tmp_path, [scene(0)], content)
    plain = recipe(classes=InstanceClassesSpec(names=NAMES))
    expected = [thing.label for thing in scene(0)]
    assert [each.label for each in read_coco(path, images, plain).objects] == expected


def first(content: Table) -> Table:
    return dict(content["annotations"][0])


def change(key: str, value: object) -> Callable[[Table], None]:
    def apply(content: Table) -> None:
        content["annotations"][1][key] = value

    return apply


def image(key: str, value: object) -> Callable[[Table], None]:
    def apply(content: Table) -> None:
        content["images"][1][key] = value

    return apply


def category(key: str, value: object) -> Callable[[Table], None]:
    def apply(content: Table) -> None:
        content["categories"][1][key] = value

    return apply


SMALL = {"size": [48, 64], "counts": [48 * 64]}
SHORT = {"size": [96, 128], "counts": [5, 5]}
NEGATIVE = {"size": [96, 128], "counts": [96 * 128 + 5, -5]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t["annotations"].clear(), "has no annotation: there is nothing to score"),
        (lambda t: t.pop("categories"), "is not a COCO instance annotation file"),
        (lambda t: t["images"].clear(), "annotation 0 is of picture 10, which is not listed"),
        (lambda t: t["annotations"].append(first(t)), "annotation id occurs more than once: 0"),
        (image("id", 10), "picture id occurs more than once: 10"),
        (image("file_name", "000.png"), "file_name occurs more than once: 000.png"),
        (image("file_name", "../000.png"), "picture 11 has the file_name '../000.png'"),
        (image("file_name", "/etc/passwd"), "has the file_name '/etc/passwd'"),
        (image("file_name", "gone.png"), "1 of 3 pictures .* are not in .*: gone.png"),
        (image("file_name", ""), "picture 11 has the file_name ''"),
        (image("neg_category_ids", [3]), r"holds LVIS annotations \(`neg_category_ids`\)"),
        (image("neg_category_ids", []), "holds LVIS annotations"),
        (image("file_name", 7), r"images\[1\].file_name"),
        (image("width", 0), "picture 11 has the size 96x0"),
        (image("width", 127), "001.png is 96x128, its annotations say 96x127"),
        (category("id", 3), "category id occurs more than once: 3"),
        (category("name", "circle"), "category 7 is 'circle', in the recipe .* it is 'square'"),
        (category("id", 8), "has category 7, which is not listed"),
        (change("category_id", 5), "annotation 1 has category 5, which is not listed"),
        (change("image_id", 5), "annotation 1 is of picture 5, which is not listed"),
        (change("image_id", "10"), r"annotations\[1\].image_id"),
        (change("segmentation", [1, 2, 3, 4, 5, 6]), r"annotations\[1\].segmentation\[0\]"),
        (change("ignore", 1), r"annotation 1 \(of 000.png\) has `ignore`"),
        (change("segmentation", SMALL), "has a mask of 48x64, its picture is 96x128"),
        (change("segmentation", SHORT), "does not fill its picture"),
        (change("segmentation", NEGATIVE), "does not fill its picture"),
        (change("segmentation", {"size": [96, 128], "counts": "abc~"}), "does not fill"),
        (change("segmentation", {"size": [96, 128], "counts": ""}), "does not fill"),
        (change("segmentation", "x"), r"annotations\[1\].segmentation"),
        (change("bbox", [1, 2, -3, 4]), r"has the box \[1.0, 2.0, -3.0, 4.0\]"),
        (change("bbox", [1, 2, 3]), r"annotations\[1\].bbox"),
        (change("area", -1), "the area -1.0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[Table], None], words: str) -> None:
    path, images = written(tmp_path, scenes())
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DeployError, match=words) as caught:
        read_coco(path, images, recipe())
    assert caught.value.hint


def test_exchanged_ids_are_named_from_both_sides(tmp_path: Path) -> None:
    content = table([scene(0)])
    content["categories"][0]["id"], content["categories"][1]["id"] = 7, 3
    path, images = written(tmp_path, [scene(0)], content)
    with pytest.raises(DeployError, match=r"'disc' has category id 7, in the recipe .* it has 3"):
        read_coco(path, images, recipe())


def test_objects_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    content = table([scene(0)])
    content["categories"].append({"id": 50, "name": "star"})
    content["annotations"][0]["category_id"] = 50
    path, images = written(tmp_path, [scene(0)], content)
    with pytest.raises(DeployError, match="objects of 'star', which tiny_instance does not know"):
        read_coco(path, images, recipe())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100000, "is not a COCO instance annotation file"),
        (b"[]", "is not a COCO instance annotation file"),
        (b"[{}]", "is not a COCO instance annotation file"),
        (b'{"images": {}, "annotations": [], "categories": []}', "images"),
    ],
)
def test_what_is_no_annotation_file(tmp_path: Path, raw: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(DeployError, match=words):
        read_coco(tmp_path / "a.json", tmp_path, recipe())


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    path, images = written(tmp_path, scenes())
    with pytest.raises(DeployError, match=r"cannot read the annotations .*none.json"):
        read_coco(tmp_path / "none.json", images, recipe())
    with pytest.raises(DeployError, match="is not a folder of pictures"):
        read_coco(path, images / "000.png", recipe())


def test_many_missing_pictures_are_counted_and_the_first_named(tmp_path: Path) -> None:
    many = [scene(i, count=1) for i in range(9)]
    path, images = written(tmp_path, many)
    for number in range(1, 9):
        (images / f"{number:03}.png").unlink()
    with pytest.raises(DeployError, match=r"8 of 9 pictures .*005.png and 3 more"):
        read_coco(path, images, recipe())


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_compressed_run_lengths_are_counted_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 200)), int(rng.integers(1, 200)))
    mask = rng.random(hw) < rng.random() ** 3
    counts = compressed_counts(encode((0, 0, mask), hw)["counts"])
    assert counts is not None
    again = np.repeat(np.arange(len(counts)) % 2, counts).reshape(hw[::-1]).T
    np.testing.assert_array_equal(again.astype(bool), mask)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_breaks_the_counting(text: str) -> None:
    found = compressed_counts(text)
    assert found is None or all(isinstance(value, int) for value in found)
