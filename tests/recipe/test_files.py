"""Recipe files: found by name, told from other files, all faults at once; the templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pointrend_deploy import load_recipe
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe import files
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe
from tests.repository import ROOT

EXPORT = ROOT / "export"
SEMANTIC = "pointrend_semantic_fpn_r101_cityscapes"
INSTANCE = "pointrend_mask_rcnn_r50_fpn_coco"
TEMPLATES = ("my_model", "my_instance_model")


def refusal(recipe: str | Path) -> DeployError:
    with pytest.raises(DeployError) as caught:
        load_recipe(recipe)
    return caught.value


def written(folder: Path, text: str, *changes: tuple[str, str]) -> Path:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_recipe_is_found_by_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names = files.recipe_names()
    assert {SEMANTIC, INSTANCE, "demo_semantic", *TEMPLATES} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description, name
        assert load_recipe(f"{name}.toml") == load_recipe(EXPORT / f"{name}.toml") == recipe


def test_a_file_comes_before_a_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = (EXPORT / "demo_semantic.toml").read_text()
    Path("demo_semantic.toml").write_text(text.replace("demo_semantic", "own"))
    Path("demo_instance").mkdir()  # such as a bundle
    assert load_recipe("demo_semantic.toml").name == "own"
    assert load_recipe("demo_semantic").name == "demo_semantic"
    assert load_recipe("demo_instance").name == "demo_instance"
    assert "is a folder" in refusal(Path.cwd() / "demo_instance").message


def test_an_installed_package_has_a_copy(tmp_path: Path, monkeypatch: Any) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "only.toml").write_text((EXPORT / "demo_semantic.toml").read_text())
    monkeypatch.setattr(files, "_SHIPPED", shipped)
    assert files.recipe_names() == ("only",)
    assert load_recipe("only").name == "demo_semantic"


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("demo_semantc", "no recipe is called demo_semantc", "did you mean demo_semantic"),
        ("zzz", "no recipe is called zzz", "`pointrend-deploy recipes` lists"),
        ("export/demo_instance", "cannot read the recipe", "did you mean demo_instance?"),
        ("elsewhere/demo_instance.toml", "cannot read the recipe", "did you mean demo_instance?"),
        ("none.toml", "cannot read the recipe none.toml: No such file", "lists"),
    ],
)
def test_unknown_names_and_paths(
    tmp_path: Path, monkeypatch: Any, given: str, message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(given)
    assert error.message.startswith(message)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "raw", "words", "hint"),
    [
        (
            "config.yaml",
            b"_BASE_: x.yaml\nMODEL:\n  WEIGHTS: a\n",
            "of detectron2 (YAML)",
            "--show",
        ),
        ("config", b"MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\n", "of detectron2", "--show"),
        ("other.yml", b"a: 1\n", "is a YAML file", "--show"),
        ("mine.toml", b"# my model\n\nname: own\ninput:\n", "holds a YAML file", "--show"),
        ("mine.toml", b"---\n- a\n", "holds a YAML file", "--show"),
        ("mine.toml", b"_BASE_: x\nMODEL: {}\n", "holds a configuration of detectron2", "--show"),
        ("model_final.pth", b"PK\x03\x04zip", "is a checkpoint, not a recipe", "--weights {}"),
        ("model_final.pkl", b"\x80\x04", "is a checkpoint, not a recipe", "--weights {}"),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{", "is a checkpoint", "--weights {}"),
        ("renamed.toml", b"\x80\x02}q\0", "is a checkpoint", "--weights {}"),
        ("large.toml", b"#" * (files.LARGEST + 1), "larger than 1 MiB", "recipes"),
        ("broken.toml", b"[input\n", "is not valid TOML", "my_model"),
        ("broken.toml", b"name = 'own'\ninput: 1\n", "is not valid TOML", "my_model"),
        ("latin.toml", b"name = '\xe9'", "is not valid TOML", "my_model"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, raw: bytes, words: str, hint: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    error = refusal(path)
    assert str(path) in error.message
    assert words in error.message
    assert hint.format(path) in error.hint


def test_all_wrong_values_come_together(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        (EXPORT / f"{SEMANTIC}.toml").read_text(),
        ("pixel_std = [1.0, 1.0, 1.0]", "pixel_std = [1.0, 0.0, inf]"),
        ("size_divisibility = 32", "size_divisibility = 24"),
        ("channels = 128", "channels = 100"),
        ("num_fc = 3", "num_fc = 0"),
        ("subdivision_points = 8192", "subdivision_points = -1"),
    )
    error = refusal(path)
    assert error.message.startswith(f"{path}: 5 keys are wrong:\n")
    for key in (
        "input.pixel_std",
        "input.size_divisibility",
        "coarse_head.channels",
        "point_head.num_fc",
        "point_head.subdivision_points",
    ):
        assert f"\n  - `{key}`: must be " in error.message or f"`{key}`: GroupNorm" in error.message
    assert "correct those keys" in error.hint


def test_all_wrong_values_of_an_instance_recipe_come_together(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        (EXPORT / f"{INSTANCE}.toml").read_text(),
        ('in_features = ["res2", "res3", "res4", "res5"]', 'in_features = ["res<", "res5"]'),
        ("nms_threshold = 0.7", "nms_threshold = 7.0"),
        ("detections = 100", "detections = 0"),
        ("output_resolution = 7", "output_resolution = 0"),
    )
    message = refusal(path).message
    found = re.findall(r"\n  - `([\w.]+)`", message)
    assert found == [
        "fpn.in_features",
        "rpn.nms_threshold",
        "box_head.detections",
        "mask_head.output_resolution",
    ]


def test_all_unknown_missing_and_mistyped_keys_come_together(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        (EXPORT / f"{SEMANTIC}.toml").read_text(),
        ('name = "pointrend_semantic_fpn_r101_cityscapes"\n', ""),
        ('channel_order = "BGR"', 'channel_ordr = "BGR"'),
        ("depth = 101", "depth = 18"),
        ("top_level = true", "top_level = 1"),
        ("fc_dim = 256", 'fc_dim = "wide"'),
        ("pixel_std = [1.0, 1.0, 1.0]", 'pixel_std = [1.0, "one"]'),
    )
    message = refusal(path).message
    lines = {line.strip(" -") for line in message.splitlines()[1:]}
    assert lines == {
        "`name`: is missing",
        "`input.channel_order`: is missing",
        "`input.channel_ordr`: unknown key; did you mean `channel_order`?",
        "`input.pixel_std`: must be a list of length 3, not 2",
        "`backbone.depth`: must be 50 or 101, not 18",
        "`fpn.top_level`: must be true or false, not a whole number",
        "`point_head.fc_dim`: must be a whole number, not text in quotes",
    }


def test_wrong_values_are_said_beside_keys_of_a_wrong_form(tmp_path: Path) -> None:
    changes = [
        ("size_divisibility = 16", "size_divisibility = 24\nsize = 3"),
        ("pixel_mean = [127.0, 127.0, 127.0]", "pixel_mean = [127.0, 127.0]"),
        ("pixel_std = [128.0, 128.0, 128.0]", "pixel_std = [128.0, 0.0, 128.0]"),
    ]
    text = (EXPORT / "demo_semantic.toml").read_text()
    message = refusal(written(tmp_path, text, *changes)).message
    for key in ("size", "size_divisibility", "pixel_mean", "pixel_std"):
        assert f"  - `input.{key}`: " in message
    # What is held against a key of a wrong form cannot be judged, and nothing is said of it.
    message = refusal(written(tmp_path, text, ("out_channels = 64", 'out_channels = "x"'))).message
    assert message.endswith("`fpn.out_channels`: must be a whole number, not text in quotes")
    for odd in ('"a.b" = 1', '"a[" = 1', '"input.x[" = 1'):
        assert "unknown key" in refusal(written(tmp_path, f"{odd}\n{text}")).message


def test_a_key_of_another_kind_is_said_to_be_of_that_kind(tmp_path: Path) -> None:
    text = (EXPORT / "demo_semantic.toml").read_text()
    kind = 'kind = "efficientnet_lite0"'
    levels = 'in_features = ["res2", "res3", "res4"]'
    path = written(
        tmp_path,
        text.replace("[classes]", "[rpn]\nnms_threshold = 0.7\n\n[classes]\ncategory_ids = [1]"),
        (kind, f"{kind}\ndepth = 50"),
        (levels, 'in_features = ["res2", "res3", "res4", "res5"]'),
    )
    message = refusal(path).message
    assert '`backbone.depth`: unknown key; it belongs to kind = "resnet"\n' in message
    assert '`rpn`: unknown key; it belongs to task = "instance"\n' in message
    assert '`classes.category_ids`: unknown key; it belongs to task = "instance"\n' in message
    assert (
        "`fpn.in_features`: the backbone efficientnet_lite0 has the features res2, res3, res4, not "
        'res5; give the last of them, in this order, such as ["res2", "res3", "res4"]'
    ) in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "resnet"', "", '`backbone.kind`: is missing: must be "resnet" or'),
        ('kind = "resnet"', 'kind = "vit"', '`backbone.kind`: must be "resnet" or'),
        ('task = "semantic"', 'task = "panoptic"', '`task`: must be "semantic" or "instance"'),
        ('task = "semantic"', "task = 3", "`task`: must be text in quotes, not a whole number"),
        ("[fpn]", "[[fpn]]", "`fpn`: must be a table, [fpn]"),
    ],
)
def test_tables_and_kinds(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = written(tmp_path, (EXPORT / f"{SEMANTIC}.toml").read_text(), (old, new))
    assert said in refusal(path).message


@pytest.mark.parametrize("steps", [10**12, -(10**12)])
def test_numbers_past_all_reason_are_refused_at_once(tmp_path: Path, steps: int) -> None:
    for name, key in ((SEMANTIC, "subdivision_steps = 2"), (INSTANCE, "subdivision_steps = 5")):
        text = (EXPORT / f"{name}.toml").read_text()
        path = written(tmp_path, text, (key, f"subdivision_steps = {steps}"))
        assert "`point_head.subdivision_steps`" in refusal(path).message
    path = written(
        tmp_path,
        (EXPORT / f"{SEMANTIC}.toml").read_text(),
        ("fc_dim = 256", f"fc_dim = {abs(steps)}"),
    )
    assert "`point_head.fc_dim`: must be at most" in refusal(path).message


def keys_of(form: Any, above: str = "") -> set[str]:
    found = set()
    for field in msgspec.structs.fields(form):
        name = above + field.encode_name
        found.add(name)
        for inner in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                found |= keys_of(inner, f"{name}.")
    return found


@pytest.mark.parametrize(
    ("name", "form"), [("my_model", Recipe), ("my_instance_model", InstanceRecipe)]
)
def test_a_template_has_every_key_with_its_meaning(name: str, form: Any) -> None:
    text = (EXPORT / f"{name}.toml").read_text()
    table, shown = "", set()
    for line in text.splitlines():
        line = line.removeprefix("#     ")  # the keys of the other kind of mask head
        if match := re.match(r"\[(\w+)\]", line):
            table = f"{match[1]}."
            shown.add(match[1])
        elif match := re.match(r"(\w+) = ", line):
            shown.add(table + match[1])
            assert "#" in line, f"{name}: {line} has no comment"
    assert keys_of(form) <= shown, keys_of(form) - shown


def test_a_file_without_its_suffix_is_found_in_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own.toml").write_text((EXPORT / f"{SEMANTIC}.toml").read_text())
    monkeypatch.chdir(tmp_path)
    for given in ("my_own", "my_own.tml"):
        with pytest.raises(DeployError) as caught:
            files.find_recipe(given)
        assert caught.value.hint.startswith("did you mean my_own.toml?")
