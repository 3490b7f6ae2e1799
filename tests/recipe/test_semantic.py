"""Recipes: what is read, and what is refused by the key at fault."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.parts import ResNetSpec
from pointrend_deploy.recipe.semantic import Recipe, check_recipe, load_recipe
from tests.repository import ROOT

EXPORT = ROOT / "export"
CITYSCAPES = EXPORT / "pointrend_semantic_fpn_r101_cityscapes.toml"


def test_every_semantic_recipe_loads() -> None:
    names = {path.stem: load_recipe(path) for path in EXPORT.glob("*semantic*.toml")}
    assert {"demo_semantic", "semantic_fpn_r50_coco_stuff", "semantic_fpn_r101_cityscapes"} <= {
        *names
    }
    for stem, recipe in names.items():
        assert recipe.name == stem
        assert isinstance(recipe, Recipe)


def test_cityscapes_is_what_detectron2_trained() -> None:
    recipe = load_recipe(CITYSCAPES)
    assert isinstance(recipe.backbone, ResNetSpec)
    assert (recipe.backbone.depth, recipe.num_classes) == (101, 19)
    assert recipe.point_head is not None
    assert (recipe.point_head.subdivision_steps, recipe.point_head.subdivision_points) == (2, 8192)
    assert recipe.classes.names[0] == "road"
    assert recipe.classes.colours[13] == (0, 0, 142)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "fc_dim = 256",
            "fc_dim = 256\nfc_dims = 3",
            "`point_head.fc_dims`: unknown key; did you mean `fc_dim`?",
        ),
        ("num_fc = 3", 'num_fc = "three"', "`point_head.num_fc`: must be a whole number, not text"),
        ("num_fc = 3", "num_fc = 0", "point_head.num_fc"),
        ("subdivision_steps = 2", "subdivision_steps = 3", "2 would"),
        ("subdivision_points = 8192", "subdivision_points = 0", "subdivision_points"),
        ("depth = 101", "depth = 18", "`backbone.depth`: must be 50 or 101, not 18"),
        (
            'kind = "resnet"',
            'kind = "swin"',
            '`backbone.kind`: must be "resnet" or "efficientnet_lite0"',
        ),
        (
            'channel_order = "BGR"',
            'channel_order = "GRB"',
            '`input.channel_order`: must be "BGR" or "RGB", not "GRB"',
        ),
        ("subdivision_points = 8192", "subdivision_points = 268435457", "at most 268435456"),
        ("subdivision_steps = 2", "subdivision_steps = 1000000000000", "2 would"),
        ("num_fc = 3", "num_fc = 65", "at most 64"),
        ('"res4", "res5"', '"res<", "res5"', "fpn.in_features"),
        ("pixel_std = [1.0, 1.0, 1.0]", "pixel_std = [1.0, 1e300, 1.0]", "must lie between"),
        ("pixel_mean = [103.53,", "pixel_mean = [1e300,", "must lie between"),
        ("size_divisibility = 32", "size_divisibility = 2097152", "up to 1048576"),
        ("pixel_std = [1.0, 1.0, 1.0]", "pixel_std = [1.0, 0.0, 1.0]", "input.pixel_std"),
        ("pixel_mean = [103.53,", "pixel_mean = [nan,", "input.pixel_mean"),
        ("size_divisibility = 32", "size_divisibility = 24", "multiple of 32"),
        ("common_stride = 4", "common_stride = 16", "common_stride"),
        ("channels = 128", "channels = 100", "GroupNorm"),
        ('in_features = ["p2"]', 'in_features = ["p7"]', "point_head.in_features"),
        ('"road", "sidewalk"', '"road", "road"', "names must differ"),
        ("[128, 64, 128], ", "", "18 colours for 19 names"),
        ("[128, 64, 128]", "[128, 64, 256]", "0 to 255"),
        ('name = "pointrend_semantic_fpn_r101_cityscapes"', 'name = ""', "`name`"),
        ("[input]", "[input", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = CITYSCAPES.read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(DeployError) as caught:
        load_recipe(path)
    assert words in caught.value.message
    assert "mine.toml" in caught.value.message


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeployError, match="not valid TOML"):
        load_recipe(tmp_path / "b.toml")


def test_a_recipe_survives_json() -> None:
    recipe = load_recipe(CITYSCAPES)
    again = msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe)
    assert check_recipe(again) == recipe
