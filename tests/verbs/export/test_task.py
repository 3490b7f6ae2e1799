"""The kinds of models that can be exported, and their options."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import msgspec
import pytest

from pointrend_deploy.bundle.forms import Layout, Ops
from pointrend_deploy.errors import UsageError
from pointrend_deploy.graph.instance.export import mask_part
from pointrend_deploy.recipe.read import AnyRecipe
from pointrend_deploy.verbs.export.options import ExportOptions
from pointrend_deploy.verbs.export.task import TASKS, export_task
from tests.conftest import small_recipe
from tests.fixtures import instance_graphs, tiny_instance
from tests.fixtures.tiny_bundle import tiny_manifest
from tests.fixtures.tiny_instances import things_manifest

RECIPES: dict[str, AnyRecipe] = {
    "semantic": small_recipe(),
    "instance": tiny_instance.POINTREND,
}
CHOICES = {"outputs": ("labels",), "detections": 3, "masks": "logits", "layout": "split"}
OF_EVERY_KIND = {"weights_key"}
"""Usually None, and an option of every kind of model."""


def test_every_kind_of_recipe_can_be_exported() -> None:
    assert len(TASKS) == len(get_args(AnyRecipe))
    assert {recipe.task for recipe in RECIPES.values()} == set(TASKS)


def test_options_that_are_usually_none_are_the_own_ones_of_some_kind() -> None:
    usually_none = {field.name for field in fields(ExportOptions) if field.default is None}
    assert usually_none == set(CHOICES) | OF_EVERY_KIND
    assert set(CHOICES) == {name for task in TASKS.values() for name in task.own_options}


@pytest.mark.parametrize("option", CHOICES)
@pytest.mark.parametrize("kind", RECIPES)
def test_an_option_is_refused_where_the_kind_does_not_have_it(kind: str, option: str) -> None:
    chosen = ExportOptions(size_hw=(96, 128), **{option: CHOICES[option]})  # type: ignore[arg-type]
    if option in TASKS[kind].own_options:
        assert isinstance(export_task(RECIPES[kind], chosen), TASKS[kind])
        return
    with pytest.raises(UsageError, match=rf"^--{option} is an option of ") as caught:
        export_task(RECIPES[kind], chosen)
    assert f"leave --{option} out" in caught.value.hint
    assert all(f"--{own}" in caught.value.hint for own in TASKS[kind].own_options)


@pytest.mark.parametrize(
    ("ops", "layout", "detections", "said"),
    [
        ("plugin", "single", 32, True),
        ("plugin", "single", 31, False),
        ("plugin", "split", 32, False),
        ("native", "single", 32, False),
    ],
)
def test_masks_that_native_computes_faster_on_a_cpu(
    ops: Ops, layout: Layout, detections: int, said: bool
) -> None:
    """Said exactly where the native graph would gather rows and this one does not."""
    recipe = msgspec.structs.replace(
        tiny_instance.POINTREND,
        box_head=msgspec.structs.replace(tiny_instance.POINTREND.box_head, detections=detections),
    )
    model = tiny_instance.model(recipe)
    native = instance_graphs.options(ops="native", layout=layout, detections=detections)
    chosen = msgspec.structs.replace(native, ops=ops)
    gathers = [
        mask_part(model, each, detections, together=layout == "split").gathered
        for each in (native, chosen)
    ]
    assert said == (gathers == [True, False])
    manifest = things_manifest(layout=layout)
    export = msgspec.structs.replace(manifest.instances[1], detections=detections)
    manifest = msgspec.structs.replace(manifest, ops=ops, recipe=recipe, instance=export)
    assert bool(TASKS["instance"].notes(manifest)) == said
    assert not TASKS["semantic"].notes(tiny_manifest())
