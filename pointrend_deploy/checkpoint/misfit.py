"""How a checkpoint and a recipe that do not fit together are described to a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pointrend_deploy.checkpoint.norms import is_norm
from pointrend_deploy.checkpoint.shapes import Contradiction, Shapes
from pointrend_deploy.errors import DeployError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def differences(
    kept: Mapping[str, Tensor], shapes: Shapes, expected: Shapes, at_most: int
) -> list[str]:
    """Say which parameters are missing, extra, misshapen or of another type, a line for each fault.

    Args:
        kept: the checkpoint's tensors.
        shapes: of those.
        expected: the model's names and shapes.
        at_most: names listed for each fault.
    """
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
        f"{len(names)} {what}: {listed(names, at_most)}"
        for names, what in (
            (missing, "missing"),
            (extra, "that the model has no place for"),
            (misshapen, "of another shape"),
            (mistyped, "that are not floating point"),
        )
        if names
    ]


def listed(names: Sequence[str], at_most: int) -> str:
    """List the first names, and count the rest."""
    more = f", and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def misfit(
    recipe: str,
    found: list[Contradiction],
    apart: list[str],
    lone: bool,
    blocking: list[str],
) -> DeployError:
    """The error of a checkpoint that does not fit.

    Args:
        recipe: its name.
        found: keys that are contradicted.
        apart: what :func:`differences` gives.
        lone: whether extra tensors are the only fault.
        blocking: those of them that cannot be ignored.
    """
    lines = [f"the checkpoint does not fit the recipe {recipe}"]
    if found:
        lines[0] += ", which it contradicts:"
        lines += [f"  - {contradiction}" for contradiction in found]
        hint = _hint(found)
    else:
        lines[0] += ":"
        hint = (
            "give the checkpoint that belongs to this recipe, whole; for this project's own "
            "recipes export/README.md says which"
        )
    if lone and not blocking:
        hint = "all else fits: --ignore-extra leaves those tensors out"
    elif lone:
        hint = (
            f"{blocking[0]} belongs to a part that the model computes with, so it cannot be left "
            f"out: {hint}"
        )
    if apart:
        lines.append("Parameters:")
        lines += [f"  - {difference}" for difference in apart]
    return DeployError("\n".join(lines), hint)


def _hint(found: list[Contradiction]) -> str:
    norms = [each for each in found if is_norm(each.key) and "" not in each.fits.values()]
    values = [f'`{each.key} = "{next(iter(each.fits.values()))}"`' for each in norms if each.fits]
    if not values and len(norms) < len(found):
        return "set those keys of the recipe, or give the checkpoint that belongs to it"
    if not values:
        return "no recipe describes these norms; give a checkpoint that belongs to the recipe"
    rest = ", and the other keys above," if len(norms) < len(found) else ""
    hint = f"set {', '.join(values)}{rest} in the recipe, or give the checkpoint that belongs to it"
    if any("GN" in each.fits.values() for each in norms):
        hint += "; a layer norm (LN) has the same shapes, and no recipe describes it"
    return hint
