"""A training configuration that stands in a checkpoint file, compared with the recipe.

detectron2's own files have none; some trainers add the table ``cfg``, and Lightning adds
``hyper_parameters``. Only keys that have to be the same in training and use are compared;
thresholds and numbers of detections are a user's choice. A configuration as text is not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pointrend_deploy.checkpoint.shapes import Contradiction, toml_value
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe

_KEYS = {
    "INPUT.FORMAT": "input.channel_order",
    "MODEL.PIXEL_MEAN": "input.pixel_mean",
    "MODEL.PIXEL_STD": "input.pixel_std",
    "MODEL.RESNETS.STRIDE_IN_1X1": "backbone.stride_in_1x1",
    "MODEL.RPN.IN_FEATURES": "rpn.in_features",
    "MODEL.ANCHOR_GENERATOR.SIZES": "rpn.anchor_sizes",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "rpn.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.OFFSET": "rpn.anchor_offset",
    "MODEL.ROI_HEADS.IN_FEATURES": "box_head.in_features",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "box_head.box_weights",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "box_head.sampling_ratio",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": "mask_head.pooler_resolution",
    "MODEL.POINT_HEAD.IN_FEATURES": "point_head.in_features",
    "channel_order": "input.channel_order",
    "pixel_mean": "input.pixel_mean",
    "pixel_std": "input.pixel_std",
    "stride_in_1x1": "backbone.stride_in_1x1",
}
"""Keys of a recipe by those of detectron2's configuration, or by a hyper parameter's name."""
_TABLES = ("cfg", "config", "hyper_parameters")
_TOLERANCE = 1e-3


def compared(
    beside: Mapping[str, object], recipe: Recipe | InstanceRecipe
) -> tuple[list[Contradiction], set[str]]:
    """Compare the configurations that a file holds with a recipe.

    Args:
        beside: what the file holds beside weights.
        recipe: of any task.

    Returns:
        The keys that are contradicted, and the recipe's keys that were compared and agree.
    """
    table = msgspec.json.decode(msgspec.json.encode(recipe))
    found: dict[str, Contradiction] = {}
    agreed: set[str] = set()
    for name, key, held in _held(beside):
        says = table
        for part in key.split("."):
            says = says.get(part) if isinstance(says, dict) else None
        fits = _in_form_of(says, held)
        if says is None or fits is None:
            continue
        if _same(says, fits):
            agreed.add(key)
            continue
        what = f"the configuration in the checkpoint ({name}) says otherwise"
        found[key] = Contradiction(key, says, what, {toml_value(fits): fits})
    return list(found.values()), agreed - set(found)


def _held(beside: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """What the file says of a recipe's key: where it says so, the key, the value."""
    for name in _TABLES:
        table = beside.get(name)
        if not isinstance(table, Mapping):
            continue
        inner = [table[part] for part in ("cfg", "config") if isinstance(table.get(part), Mapping)]
        for each in (table, *inner):
            for theirs, key in _KEYS.items():
                held: object = each
                for part in theirs.split("."):
                    held = held.get(part) if isinstance(held, Mapping) else None
                if held is not None:
                    yield f"{name}: {theirs}", key, held


def _in_form_of(says: object, held: object) -> Any:
    """A configuration's value as the recipe would write it; None where it has another form."""
    if isinstance(held, tuple):
        held = list(held)
    if isinstance(says, (bool, str)):
        return held if isinstance(held, type(says)) else None
    if isinstance(says, (int, float)):
        return held if isinstance(held, (int, float)) and not isinstance(held, bool) else None
    if not isinstance(says, list) or not isinstance(held, list) or not says or not held:
        return None
    if isinstance(says[0], list) and len(held) == 1 and isinstance(held[0], (list, tuple)):
        held = held * len(says)  # detectron2: one row stands for all levels
    elif not isinstance(says[0], list) and len(held) == 1 and isinstance(held[0], (list, tuple)):
        held = list(held[0])
    rows = [_in_form_of(says[0], each) for each in held]
    return None if any(row is None for row in rows) else rows


def _same(says: object, held: object) -> bool:
    if isinstance(says, list) and isinstance(held, list):
        return len(says) == len(held) and all(map(_same, says, held))
    if isinstance(says, (int, float)) and isinstance(held, (int, float)):
        return math.isclose(says, held, abs_tol=_TOLERANCE)
    return says == held
