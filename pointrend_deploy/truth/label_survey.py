"""The label maps of a set, read once before any work: what they hold, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pointrend_deploy.errors import DeployError
from pointrend_deploy.recipe.semantic import Recipe
from pointrend_deploy.truth.annotations import listed, upright_hw
from pointrend_deploy.truth.label_maps import Pair, read_labels
from pointrend_deploy.wording import count_of

MOSTLY_IGNORED: Final = 0.9
"""From this share of ignored pixels on, a note says how few are scored."""

_RULE: Final = (
    "up to half of the label maps may be unusable: their pictures are skipped, each with its reason"
)


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and their label maps, if they have any, and a line for all that is suspicious."""

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


def survey(pairs: Sequence[Pair], recipe: Recipe) -> LabelledPictures:
    """Read every label map and check the set as a whole.

    A label map that cannot be used by itself (broken, of another size than its picture, with a
    value that is no class) does not stop the set: its picture is skipped when it is compared, with
    the reason.

    Args:
        pairs: from :func:`pointrend_deploy.truth.label_maps.pairs`.
        recipe: has the classes.

    Raises:
        DeployError: most label maps cannot be used, no pixel has a class, or there are only 0 and
            an ignored 255, which is a mask in black and white.
    """
    names, ignore = recipe.classes.names, recipe.classes.ignore_label
    pixels = np.zeros(len(names), np.int64)
    ignored = 0
    problems: list[DeployError] = []
    labelled = [pair for pair in pairs if pair.labels is not None]
    for pair in labelled:
        try:
            values = read_labels(
                pair.labels or "", len(names), ignore, pair.coding, upright_hw(pair.picture)
            )
        except DeployError as error:
            problems.append(error)
            continue
        counted = values[values != ignore]
        pixels += np.bincount(counted, minlength=len(names))
        ignored += values.size - counted.size
    if not labelled:
        return LabelledPictures(tuple(pairs))
    if len(problems) > len(labelled) / 2:
        raise DeployError(
            f"{len(problems)} of {count_of(len(labelled), 'label map')} cannot be scored against, "
            f"which is more than half; the first: {problems[0].message}",
            "; ".join(filter(None, (problems[0].hint, _RULE))),
        )
    notes = _notes(pixels.tolist(), ignored, names, ignore)
    if problems:
        notes = (
            f"{len(problems)} of {count_of(len(labelled), 'label map')} cannot be scored against, "
            "and their pictures are skipped (more than half would end the comparison)",
            *notes,
        )
    return LabelledPictures(tuple(pairs), notes)


def _notes(
    pixels: Sequence[int], ignored: int, names: Sequence[str], ignore: int
) -> tuple[str, ...]:
    shown = [name for name, count in zip(names, pixels, strict=True) if count]
    if not shown:
        raise DeployError(
            f"no pixel of the label maps has a class: every one is {ignore}, which is not scored",
            "Cityscapes' test set ships label maps without labels; give those of val",
        )
    if len(names) > 1 and shown == [names[0]] and ignored and ignore == 255:
        raise DeployError(
            "the label maps hold 0 and 255 only; 255 is not scored, so nothing but the class "
            f"{names[0]!r} is left",
            "these may be masks in black and white; a label map's values are class numbers, and "
            "255 marks what is not to be scored",
        )
    notes = []
    if len(shown) < len(names):
        absent = [name for name in names if name not in shown]
        notes.append(
            f"{len(absent)} of {count_of(len(names), 'class', 'classes')} without a pixel in the "
            f"whole set: {listed(absent)}"
        )
    share = ignored / (ignored + sum(pixels))
    if share >= MOSTLY_IGNORED:
        notes.append(f"{100 * share:.1f} % of the pixels are {ignore}, which is not scored")
    return tuple(notes)
