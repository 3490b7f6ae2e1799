"""Instance recipes: those in export/, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import CoarseMaskHeadSpec, InstanceRecipe
from pointrend_deploy.recipe.instance_check import check_instance_recipe, load_instance_recipe
from tests.repository import ROOT

EXPORT = ROOT / "export"
NAMES = [
    *(
        f"{head}mask_rcnn_{b}_fpn_coco"
        for head in ("", "pointrend_")
        for b in ("r50", "r101", "x101")
    ),
    "pointrend_mask_rcnn_r50_fpn_cityscapes",
    *(f"mask_rcnn_r50_fpn_coco_{end}" for end in ("gn", "syncbn", "scratch_gn", "scratch_syncbn")),
    *(f"mask_rcnn_r{depth}_fpn_coco_lsj" for depth in (50, 101)),
]
POINTREND = load_instance_recipe(EXPORT / "pointrend_mask_rcnn_r50_fpn_coco.toml")
STANDARD = load_instance_recipe(EXPORT / "mask_rcnn_r50_fpn_coco.toml")


@pytest.mark.parametrize("name", NAMES)
def test_recipes(name: str) -> None:
    recipe = load_instance_recipe(EXPORT / f"{name}.toml")
    assert recipe.name == name
    assert recipe.num_classes == len(recipe.classes.colours) == len(recipe.category_ids)
    assert recipe.num_classes == (8 if "cityscapes" in name else 80)
    assert recipe.mask_side == (224 if name.startswith("pointrend_") else 28)
    assert recipe.pyramid == ("p2", "p3", "p4", "p5", "p6")
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=InstanceRecipe) == recipe


def test_anchors_in_their_three_forms() -> None:
    """Of rows a level, one row and plain numbers, the last two are for every level."""
    rows = changed(POINTREND, "rpn.aspect_ratios", ((0.5, 1.0, 2.0),) * 5)
    row = changed(POINTREND, "rpn.aspect_ratios", ((0.5, 1.0, 2.0),))
    assert rows.rpn.anchors == row.rpn.anchors == POINTREND.rpn.anchors
    assert POINTREND.rpn.anchors[4] == ((512.0,), (0.5, 1.0, 2.0))
    sizes = changed(POINTREND, "rpn.anchor_sizes", (32.0, 48.0))
    assert check_instance_recipe(sizes).rpn.anchors == (((32.0, 48.0), (0.5, 1.0, 2.0)),) * 5
    uneven = changed(sizes, "rpn.anchor_sizes", ((32.0, 48.0), *[(64.0,)] * 4))
    ratios = changed(uneven, "rpn.aspect_ratios", ((1.0,), *[(0.5, 2.0)] * 4))
    assert check_instance_recipe(ratios).rpn.anchors_a_cell == 2
    with pytest.raises(DeployError, match=r"share one head.*\[6, 3, 3, 3, 3\]"):
        check_instance_recipe(uneven)


@pytest.mark.parametrize(
    ("norm", "channels", "key"),
    [("fpn", 100, "fpn.out_channels"), ("mask_head", 40, "mask_head.channels")],
)
def test_groups_divide_the_channels(norm: str, channels: int, key: str) -> None:
    recipe = changed(changed(STANDARD, f"{norm}.norm", "GN"), key, channels)
    with pytest.raises(DeployError, match=f"`{key}`: GroupNorm has 32 groups: {channels} channels"):
        check_instance_recipe(recipe)


def test_coco_ids_have_gaps_and_default_ones_have_none() -> None:
    assert POINTREND.category_ids[10:13] == (11, 13, 14)
    assert changed(POINTREND, "classes.category_ids", ()).category_ids[-1] == 80


def changed(recipe: InstanceRecipe, key: str, value: Any) -> InstanceRecipe:
    table, _, name = key.rpartition(".")
    if not table:
        return msgspec.structs.replace(recipe, **{name: value})
    part = msgspec.structs.replace(getattr(recipe, table), **{name: value})
    return msgspec.structs.replace(recipe, **{table: part})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", " "),
        ("input.pixel_mean", (0.0, float("nan"), 0.0)),
        ("input.pixel_std", (1.0, 0.0, 1.0)),
        ("input.size_divisibility", 16),
        ("classes.names", ()),
        ("classes.names", ("a", "a")),
        ("classes.colours", ((0, 0, 0),)),
        ("classes.category_ids", (1, 2)),
        ("classes.category_ids", (1,) * 80),
        ("backbone.groups", 0),
        ("fpn.in_features", ("res2", "res3")),
        ("fpn.in_features", ()),
        ("fpn.out_channels", 0),
        ("rpn.in_features", ("p2", "p9", "p4", "p5", "p6")),
        ("rpn.anchor_sizes", ((32.0,), (64.0,))),
        ("rpn.anchor_sizes", (32.0, (64.0,))),
        ("rpn.anchor_sizes", ((32.0,), (64.0,), (128.0,), (256.0,), ())),
        ("rpn.aspect_ratios", ((0.5, 1.0), (2.0,))),
        ("rpn.aspect_ratios", (1.0, float("inf"))),
        ("rpn.num_conv", 0),
        ("rpn.anchor_sizes", ((32.0,), (64.0,), (128.0,), (256.0,), (1e300,))),
        ("rpn.aspect_ratios", (0.5, 1e-300)),
        ("rpn.pre_nms_topk", 2**20 + 1),
        ("box_head.num_fc", 65),
        ("box_head.box_weights", (10.0, 10.0, 5.0, 1e300)),
        ("point_head.subdivision_steps", 10**12),
        ("rpn.anchor_sizes", ((32.0,), (64.0,), (128.0,), (256.0,), (512.0, 600.0))),
        ("rpn.anchor_sizes", ((32.0,), (64.0,), (128.0,), (256.0,), (-1.0,))),
        ("rpn.aspect_ratios", ()),
        ("rpn.anchor_offset", 1.0),
        ("rpn.pre_nms_topk", 0),
        ("rpn.post_nms_topk", 0),
        ("rpn.nms_threshold", 0.0),
        ("box_head.in_features", ("p2", "p4")),
        ("box_head.in_features", ("p3", "p2")),
        ("box_head.pooler_resolution", 0),
        ("box_head.num_fc", 0),
        ("box_head.num_conv", -1),
        ("box_head.channels", 0),
        ("box_head.norm", "GN"),
        ("box_head.box_weights", (10.0, 10.0, 0.0, 5.0)),
        ("box_head.score_threshold", 1.0),
        ("box_head.nms_threshold", 1.5),
        ("box_head.detections", 0),
        ("mask_head.in_features", ()),
        ("mask_head.pooler_resolution", 7),
        ("mask_head.output_resolution", 0),
        ("mask_head.num_fc", 0),
        ("point_head", None),
        ("point_head.in_features", ("p2", "p2")),
        ("point_head.subdivision_points", 0),
        ("point_head.subdivision_steps", 1),
    ],
)
def test_what_is_refused_names_the_key(key: str, value: Any) -> None:
    with pytest.raises(DeployError, match=f"`{key}`"):
        check_instance_recipe(changed(POINTREND, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mask_head.num_conv", 0),
        ("mask_head.num_conv", 65),
        ("mask_head.pooler_resolution", 2049),
        ("mask_head.sampling_ratio", 17),
        ("box_head.sampling_ratio", -1),
        ("mask_head.in_features", ("p2", "p4")),
        ("point_head", POINTREND.point_head),
    ],
)
def test_what_is_refused_with_the_standard_head(key: str, value: Any) -> None:
    with pytest.raises(DeployError, match=f"`{key}`"):
        check_instance_recipe(changed(STANDARD, key, value))


def test_enough_steps_for_the_points_are_said() -> None:
    recipe = changed(POINTREND, "point_head.subdivision_steps", 1)
    with pytest.raises(DeployError, match="784 points fill the 28x28 grid: at least 2"):
        check_instance_recipe(recipe)


def test_several_levels_in_the_coarse_head_are_allowed() -> None:
    head = CoarseMaskHeadSpec(in_features=("p2", "p4"))
    check_instance_recipe(msgspec.structs.replace(POINTREND, mask_head=head))


def test_files(tmp_path: Path) -> None:
    text = (EXPORT / "mask_rcnn_r50_fpn_coco.toml").read_text()
    file = tmp_path / "recipe.toml"
    for planted, said in (
        (text.replace("num_conv = 4", "num_conv = 4\nnum_cnov = 4"), "num_cnov"),
        (text.replace('kind = "standard"', 'kind = "implicit"'), "mask_head"),
        (text.replace('task = "instance"', 'task = "semantic"'), "task"),
        (text.replace("depth = 50", 'depth = "50"'), "backbone.depth"),
        (text + "[", "not valid TOML"),
    ):
        file.write_text(planted)
        with pytest.raises(DeployError, match=said):
            load_instance_recipe(file)
    with pytest.raises(DeployError, match="cannot read"):
        load_instance_recipe(tmp_path / "absent.toml")
