"""Norms that stand in a checkpoint and not in the recipe, or the other way round.

A norm after a convolution leaves ``<layer>.norm.weight`` and ``.bias``; a batch norm (BN, SyncBN,
FrozenBN) leaves ``running_mean`` and ``running_var`` too, a group norm or layer norm does not
(detectron2 layers/batch_norm.py, ``get_norm``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from pointrend_deploy.checkpoint.shapes import Contradiction, Shapes, value
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.recipe.semantic import Recipe

_BATCH = ("BN", "SyncBN", "FrozenBN")
"""One layer to an export: they differ while a model is trained."""
_OTHER = ("GN", "LN")


@dataclass(frozen=True)
class _Place:
    key: str
    where: str
    layers: str  # pattern of the names of the layers that the norms follow


_PLACES = {
    "backbone": _Place("backbone.norm", "backbone", r"backbone\.bottom_up\.(?:stem|res\d)\..+"),
    "fpn": _Place("fpn.norm", "FPN", r"backbone\.fpn_(?:lateral|output)\d+"),
    "coarse_head": _Place(
        "coarse_head.norm",
        "semantic head",
        r"sem_seg_head\.(?:coarse_sem_seg_head\.)?p\d+\.\d+",
    ),
    "box_head": _Place("box_head.norm", "box head", r"roi_heads\.box_head\.conv\d+"),
    "mask_head": _Place("mask_head.norm", "mask head", r"roi_heads\.mask_head\..+"),
}
"""Where norms stand, by the table of the recipe."""


def norm_contradictions(shapes: Shapes, recipe: Recipe | InstanceRecipe) -> list[Contradiction]:
    """List the places whose norms are other ones than the recipe's.

    Args:
        shapes: parameter name (today's) to shape.
        recipe: of any task. A table without the key ``norm`` stands for no norm.
    """
    table = msgspec.to_builtins(recipe)
    return [
        found
        for part, place in _PLACES.items()
        if isinstance(table.get(part), dict)
        for found in _place(shapes, place, table[part])
    ]


def is_norm(key: str) -> bool:
    """Whether a key of a recipe names the norm of a place."""
    return key in {place.key for place in _PLACES.values()}


def group_norms_in_heads(shapes: Shapes) -> str:
    """Name the first of FPN, box head and mask head that has norms without statistics."""
    for part in ("fpn", "box_head", "mask_head"):
        if _held(shapes, _PLACES[part]) == _OTHER:
            return _PLACES[part].where
    return ""


def _place(shapes: Shapes, place: _Place, table: Mapping[str, object]) -> Iterator[Contradiction]:
    if place.key == "backbone.norm" and "backbone.bottom_up.stem.conv1.weight" not in shapes:
        return  # no ResNet: that is said of backbone.kind
    if not any(re.fullmatch(place.layers + r"\.weight", name) for name in shapes):
        return  # the part itself is absent, and that is said elsewhere
    says = str(table.get("norm", ""))
    held = _held(shapes, place)
    if place.key == "backbone.norm" and held != _BATCH and says in _BATCH:
        yield from _backbone(shapes, place, says, held)
    elif says not in (held or ("",)):
        yield Contradiction(place.key, says, _found(place, held), value(*held[:1] or ("",)))


def _backbone(
    shapes: Shapes, place: _Place, says: str, held: tuple[str, ...]
) -> Iterator[Contradiction]:
    """A backbone of batch norms may have come without statistics: they were folded (see fit.py)."""
    elsewhere = group_norms_in_heads(shapes)
    if not held:
        yield Contradiction(place.key, says, _found(place, held))
    elif elsewhere:
        found = f"{_found(place, held)}, as those of its {elsewhere} do"
        yield Contradiction(place.key, says, found, value(held[0]))
    elif says != "FrozenBN":
        found = f"{_found(place, held)}, or FrozenBN whose statistics were folded into them"
        yield Contradiction(place.key, says, found, value("FrozenBN", held[0]))


def _held(shapes: Shapes, place: _Place) -> tuple[str, ...]:
    """The norms that the names of a place admit; empty for none."""
    norms = [
        name.removesuffix(".weight")
        for name in shapes
        if re.fullmatch(place.layers + r"\.norm\.weight", name)
    ]
    if not norms:
        return ()
    return _BATCH if any(f"{norm}.running_mean" in shapes for norm in norms) else _OTHER


def _found(place: _Place, held: tuple[str, ...]) -> str:
    if not held:
        return f"the checkpoint's {place.where} has no norm"
    if held == _BATCH:
        kind = "running statistics, as BN, SyncBN and FrozenBN have"
    else:
        kind = "weight and bias alone, as GN and LN have"
    return f"the norms of the checkpoint's {place.where} have {kind}"
