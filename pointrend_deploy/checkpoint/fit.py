"""Fit a checkpoint's tensors to a recipe's model, or report everything that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from pointrend_deploy.checkpoint.instance_shapes import (
    FED_LOSS_WEIGHTS,
    anchor_contradictions,
    instance_contradictions,
    score_contradictions,
)
from pointrend_deploy.checkpoint.names import refuse_other_kinds, todays_names
from pointrend_deploy.checkpoint.semantic_shapes import semantic_contradictions
from pointrend_deploy.checkpoint.shapes import Contradiction, Shapes
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.parts import InputSpec, ResNetSpec
from pointrend_deploy.recipe.semantic import Recipe

Model = TypeVar("Model", bound=nn.Module)

_LISTED = 20
_PIXEL_TOLERANCE = 1e-3
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _semantic(named: Mapping[str, Tensor], shapes: Shapes, recipe: Recipe) -> list[Contradiction]:
    return semantic_contradictions(shapes, recipe)


def _instance(
    named: Mapping[str, Tensor], shapes: Shapes, recipe: InstanceRecipe
) -> list[Contradiction]:
    return [
        *anchor_contradictions(named, recipe),
        *score_contradictions(named, recipe),
        *instance_contradictions(shapes, recipe),
    ]


_CONTRADICTIONS: Final[Mapping[type, Callable[..., list[Contradiction]]]] = {
    Recipe: _semantic,
    InstanceRecipe: _instance,
}
"""What of a recipe a checkpoint contradicts, by the kind of recipe."""


def fit_checkpoint(
    tensors: Mapping[str, Tensor], expected: Shapes, recipe: Recipe | InstanceRecipe
) -> dict[str, Tensor]:
    """Check a checkpoint against a recipe and return the model's tensors.

    Old names become today's; ``pixel_mean`` and ``pixel_std`` are compared with the recipe and
    dropped, and so are an instance model's anchors; ``num_batches_tracked`` and the class weights
    of detectron2's federated loss are dropped. A FrozenBN
    backbone without any running statistics gets mean 0 and variance 1, which is what detectron2
    gives such files: their statistics were folded into weight and bias.

    Args:
        tensors: as :func:`~pointrend_deploy.checkpoint.read.read_checkpoint` gives them.
        expected: the model's parameter and buffer names and shapes.
        recipe: what the model was built from.

    Returns:
        A float32 tensor for every name of ``expected``, in its order. A tensor that is float32
        already is returned as it is, not copied.

    Raises:
        DeployError: the checkpoint is of another model; or it contradicts the recipe, lacks
            parameters, or has more, or of other shapes or types (all in one message, with the
            recipe's values that would fit); or it has numbers that are not finite.
    """
    named = todays_names(tensors)
    refuse_other_kinds(named, recipe.name, recipe.task)
    found = _pixel_contradictions(named, recipe.input)
    kept = {name: value for name, value in named.items() if not _is_left_out(name)}
    if isinstance(recipe.backbone, ResNetSpec) and recipe.backbone.norm == "FrozenBN":
        kept.update(_folded_statistics(kept, expected))
    shapes = {name: tuple(value.shape) for name, value in kept.items()}
    found += _CONTRADICTIONS[type(recipe)](named, shapes, recipe)
    differences = _differences(kept, shapes, expected, 5 if found else _LISTED)
    if found or differences:
        raise _misfit(recipe, found, differences)
    return _as_float32(kept, expected)


def filled(
    build: Callable[[], Model], tensors: Mapping[str, Tensor], recipe: Recipe | InstanceRecipe
) -> Model:
    """Build a module with a checkpoint's weights, without gradients.

    The module is first built without memory behind its tensors, so that a recipe whose layers would
    not fit in memory is refused because they are not those of the checkpoint.

    Args:
        build: builds the module of the recipe.
        tensors: as :func:`fit_checkpoint` takes them.
        recipe: what ``build`` builds.

    Raises:
        DeployError: they do not fit; see :func:`fit_checkpoint`.
    """
    with torch.device("meta"):
        shapes = build().state_dict()
    expected = {
        name: tuple(value.shape)
        for name, value in shapes.items()
        if not name.endswith("num_batches_tracked")
    }
    fitted = fit_checkpoint(tensors, expected, recipe)
    model = build()
    model.load_state_dict(fitted, strict=False, assign=True)
    return model.requires_grad_(False)


def _is_left_out(name: str) -> bool:
    return (
        name in ("pixel_mean", "pixel_std")
        or name == FED_LOSS_WEIGHTS
        or "anchor_generator.cell_anchors" in name
        or name.endswith(".num_batches_tracked")
    )


def _pixel_contradictions(named: Mapping[str, Tensor], spec: InputSpec) -> list[Contradiction]:
    found = []
    for key, says in (("pixel_mean", spec.pixel_mean), ("pixel_std", spec.pixel_std)):
        if key not in named:
            continue
        values = [float(value) for value in named[key].flatten()[:8]]
        if _equal(values, says):
            continue
        shown = [round(value, 4) for value in values]
        order = "RGB" if spec.channel_order == "BGR" else "BGR"
        reversed_hint = (
            f" (the recipe's, reversed: is `input.channel_order` {order}?)"
            if _equal(values[::-1], says)
            else ""
        )
        found.append(
            Contradiction(f"input.{key}", list(says), f"the checkpoint has {shown}{reversed_hint}")
        )
    return found


def _equal(values: list[float], says: tuple[float, ...]) -> bool:
    return len(values) == len(says) and all(
        abs(value - other) <= _PIXEL_TOLERANCE for value, other in zip(values, says, strict=True)
    )


def _folded_statistics(kept: Mapping[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    """Mean 0 and variance 1 where a backbone has norms and none of their statistics.

    detectron2 fills in single ones too (layers/batch_norm.py, files of version < 2 or without a
    version). A file that lacks only some has been damaged, and those are reported as missing.
    """
    wanted = [
        name
        for name in expected
        if name.startswith("backbone.bottom_up.") and name.endswith(("running_mean", "running_var"))
    ]
    norms = [name.rsplit(".", 1)[0] for name in wanted]
    if any(name in kept for name in wanted) or any(f"{norm}.bias" not in kept for norm in norms):
        return {}
    return {
        name: (torch.zeros if name.endswith("mean") else torch.ones)(expected[name])
        for name in wanted
    }


def _differences(
    kept: Mapping[str, Tensor], shapes: Shapes, expected: Shapes, at_most: int
) -> list[str]:
    missing = [name for name in expected if name not in kept]
    extra = [name for name in kept if name not in expected]
    common = [name for name in expected if name in kept]
    misshapen = [
        f"{name} {list(shapes[name])} where the model has {list(expected[name])}"
        for name in common
        if shapes[name] != tuple(expected[name])
    ]
    mistyped = [
        f"{name} {kept[name].dtype}".replace("torch.", "")
        for name in common
        if kept[name].dtype not in _FLOATS
    ]
    return [
        f"{len(names)} {what}: {_listed(names, at_most)}"
        for names, what in (
            (missing, "missing"),
            (extra, "that the model has no place for"),
            (misshapen, "of another shape"),
            (mistyped, "that are not floating point"),
        )
        if names
    ]


def _listed(names: list[str], at_most: int) -> str:
    more = f", and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def _misfit(
    recipe: Recipe | InstanceRecipe, found: list[Contradiction], differences: list[str]
) -> DeployError:
    lines = [f"the checkpoint does not fit the recipe {recipe.name}"]
    if found:
        lines[0] += ", which it contradicts:"
        lines += [f"  - {contradiction}" for contradiction in found]
        hint = "set those keys of the recipe, or give the checkpoint that belongs to it"
    else:
        lines[0] += ":"
        hint = "give the checkpoint that belongs to this recipe, whole; export/README.md says which"
    if differences:
        lines.append("Parameters:")
        lines += [f"  - {difference}" for difference in differences]
    return DeployError("\n".join(lines), hint)


def _as_float32(kept: Mapping[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    fitted: dict[str, Tensor] = {}
    broken: list[str] = []
    overflowing: list[str] = []
    for name in expected:
        value = kept[name]
        fitted[name] = value.to(torch.float32)
        if not bool(torch.isfinite(fitted[name]).all()):
            (overflowing if bool(torch.isfinite(value).all()) else broken).append(name)
    problems = [
        f"{len(names)} of its {len(expected)} parameters have {what}: {_listed(names, 5)}"
        for names, what in (
            (broken, "NaN or infinite values"),
            (overflowing, "values too large for float32"),
        )
        if names
    ]
    if problems:
        raise DeployError(
            "the checkpoint cannot be used: " + "; ".join(problems),
            "its training diverged or the file is damaged: give an earlier or another checkpoint",
        )
    return fitted
