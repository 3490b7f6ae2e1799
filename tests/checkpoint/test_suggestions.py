"""A value that a message suggests ends the contradiction it was suggested for."""

from __future__ import annotations

import re

import pytest
import torch

from pointrend_deploy.checkpoint.shapes import Contradiction, value
from pointrend_deploy.checkpoint.suggestions import verified, with_value
from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.instance.model import instance_model_from_tensors
from tests.checkpoint.checkpoints import BASE, changed, checkpoint_of, fit, refusal
from tests.fixtures.tiny_instance import POINTREND, model


def test_a_value_that_does_not_fit_is_not_suggested() -> None:
    found = [Contradiction("point_head.fc_dim", 48, "it is 80 wide", value(80, 0, 96))]

    def again(trial: object) -> list[Contradiction]:
        width = trial.point_head.fc_dim  # type: ignore[attr-defined]
        return [] if width == 80 else [Contradiction("point_head.fc_dim", width, "another")]

    (kept,) = verified(found, BASE, again)
    assert str(kept) == "`point_head.fc_dim` is 48; it is 80 wide: 80 would fit"
    (none,) = verified([Contradiction("point_head.fc_dim", 48, "it is odd", value(0))], BASE, again)
    assert str(none) == "`point_head.fc_dim` is 48; it is odd; no value of this key fits"


@pytest.mark.parametrize("values", [98, 100, 3137])
def test_no_side_of_a_map_that_is_not_square(values: int) -> None:
    tensors = {name: tensor.clone() for name, tensor in model(POINTREND).state_dict().items()}
    name = "roi_heads.box_head.fc1.weight"
    channels = POINTREND.fpn.out_channels
    tensors[name] = torch.zeros(tensors[name].shape[0], channels * values)
    with pytest.raises(DeployError) as caught:
        instance_model_from_tensors(POINTREND, tensors)
    line = next(s for s in caught.value.message.splitlines() if "box_head.pooler_resolution" in s)
    side = round(values**0.5)
    assert ("would fit" in line) == (side * side == values)
    assert "no square map has" in line if side * side != values else f"{side} would fit" in line


def test_what_is_suggested_fits_when_it_is_set() -> None:
    other = changed(
        BASE,
        {
            "backbone": {"depth": 101},
            "classes": {"names": ("a", "b", "c")},
            "coarse_head": {"channels": 64, "norm": ""},
            "fpn": {"norm": "GN"},
            "point_head": {"fc_dim": 80, "num_fc": 2, "coarse_in_every_layer": True},
        },
    )
    recipe, tensors = BASE, checkpoint_of(other)
    said = refusal(tensors).message
    found = dict(
        re.findall(r"  - `([\w.]+)` is .*?: (\S+)(?: or \S+)* (?:names? )?would fit", said)
    )
    assert len(found) == 8
    for key, shown in found.items():
        new: object = {"true": True, "false": False, '""': ""}.get(shown, shown)
        if isinstance(new, str) and new.isdigit():
            new = int(new)
        if key == "classes.names":
            new = [f"class {n}" for n in range(int(shown))]
        recipe = with_value(recipe, key, new)
    assert fit(tensors, recipe)
