"""Fit a checkpoint's tensors to a recipe's model, or report everything that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from pointrend_deploy.bundle.records import NotChecked
from pointrend_deploy.checkpoint import configuration
from pointrend_deploy.checkpoint.extras import in_the_way
from pointrend_deploy.checkpoint.families import refuse_other_kinds
from pointrend_deploy.checkpoint.instance_shapes import (
    FED_LOSS_WEIGHTS,
    anchor_contradictions,
    anchors_are_held,
    instance_contradictions,
    score_contradictions,
)
from pointrend_deploy.checkpoint.misfit import differences, listed, misfit
from pointrend_deploy.checkpoint.names import todays_names
from pointrend_deploy.checkpoint.norms import norm_contradictions
from pointrend_deploy.checkpoint.prefixes import bare
from pointrend_deploy.checkpoint.read import Weights
from pointrend_deploy.checkpoint.semantic_shapes import common_strides, semantic_contradictions
from pointrend_deploy.checkpoint.shapes import Contradiction, Shapes
from pointrend_deploy.checkpoint.suggestions import verified
from pointrend_deploy.checkpoint.unchecked import not_checked
from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.parts import InputSpec, ResNetSpec
from pointrend_deploy.recipe.semantic import Recipe

_PIXEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fitted:
    """A checkpoint's tensors in a model's order, and how they were come by.

    Attributes:
        tensors: a float32 tensor for every name of the model.
        key: where the set of weights stands in its file; empty for the top level.
        others: keys of further sets of weights in the file, which were not used.
        prefix: taken off the parameters' names, with its dots; empty where there was none.
        ignored: the file's names of tensors that the model has no place for.
        not_checked: values of the recipe that nothing in the checkpoint was compared with.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    key: str
    others: tuple[str, ...]
    prefix: str
    ignored: tuple[str, ...]
    not_checked: tuple[NotChecked, ...] = field(repr=False)


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
    weights: Weights,
    expected: Shapes,
    recipe: Recipe | InstanceRecipe,
    ignore_extra: bool = False,
) -> Fitted:
    """Check a checkpoint against a recipe and return the model's tensors.

    A prefix that all of the model's names have is taken off, and old names become today's;
    ``pixel_mean`` and ``pixel_std`` are compared with the recipe and dropped, and so are an
    instance model's anchors; ``num_batches_tracked`` and the class weights of detectron2's
    federated loss are dropped. A FrozenBN backbone without any running statistics gets mean 0 and
    variance 1, which is what detectron2 gives such files: their statistics were folded into weight
    and bias.

    Args:
        weights: as :func:`~pointrend_deploy.checkpoint.read.read_weights` gives them.
        expected: the model's parameter and buffer names and shapes.
        recipe: what the model was built from.
        ignore_extra: leave out tensors that no part of the model has a place for.

    Returns:
        The tensors in the order of ``expected``. One that is float32 already is not copied.

    Raises:
        DeployError: the checkpoint is of another model; or it contradicts the recipe, lacks
            parameters, or has more, or of other shapes or types (all in one message, with the
            recipe's values that would fit); or it has numbers that are not finite.
    """
    names = bare(weights.tensors)
    named = todays_names({name: weights.tensors[old] for name, old in names.originals.items()})
    refuse_other_kinds(named, recipe.name, recipe.task, ignore_extra)
    found = _pixel_contradictions(named, recipe.input)
    kept = {name: value for name, value in named.items() if not _is_left_out(name)}
    file_shapes = {name: tuple(value.shape) for name, value in kept.items()}
    folded: dict[str, Tensor] = {}
    if isinstance(recipe.backbone, ResNetSpec) and recipe.backbone.norm == "FrozenBN":
        folded = _folded_statistics(kept, expected)
        kept.update(folded)
    shapes = {name: tuple(value.shape) for name, value in kept.items()}

    def contradicted(trial: Any) -> list[Contradiction]:
        return [
            *configuration.compared(weights.beside, trial)[0],
            *_CONTRADICTIONS[type(trial)](named, shapes, trial),
            *norm_contradictions(file_shapes, trial),
        ]

    found += verified(contradicted(recipe), recipe, contradicted)
    extra = [name for name in kept if name not in expected]
    blocking = in_the_way(extra, expected)
    ignored = extra if ignore_extra and not blocking else []
    for name in ignored:
        del kept[name]
    apart = differences(kept, shapes, expected, 5 if found else 20)
    if found or apart:
        lone = not found and len(apart) == 1 and bool(extra)
        raise misfit(recipe.name, found, apart, lone, blocking)
    confirmed = configuration.compared(weights.beside, recipe)[1]
    confirmed |= {f"input.{key}" for key in ("pixel_mean", "pixel_std") if key in named}
    if isinstance(recipe, InstanceRecipe) and anchors_are_held(named, recipe):
        confirmed |= {"rpn.anchor_sizes", "rpn.aspect_ratios"}
    if FED_LOSS_WEIGHTS in named:
        confirmed |= {"box_head.class_scores"}
    doubtful = {"backbone.norm"} if folded else set()
    if isinstance(recipe, Recipe) and len(common_strides(shapes)) > 1:
        doubtful |= {"coarse_head.common_stride", "point_head.subdivision_steps"}
    return Fitted(
        _as_float32(kept, expected),
        weights.key,
        weights.others,
        names.prefix + "".join(f"{part}." for part in names.inner),
        tuple(ignored),
        not_checked(recipe, confirmed, doubtful),
    )


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
        f"{len(names)} of its {len(expected)} parameters have {what}: {listed(names, 5)}"
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
