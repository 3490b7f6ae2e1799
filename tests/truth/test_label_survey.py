"""Label maps that cannot all be meant: said in a line, or refused where no score has a sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.truth.label_maps import pairs
from pointrend_deploy.truth.label_survey import LabelledPictures, survey
from tests.fixtures.tiny_bundle import tiny_recipe

HW = (8, 12)
ALL = np.arange(96, dtype=np.uint8).reshape(HW) % 3
"""Every class of the tiny recipe: blue, green and red."""


def of(tmp_path: Path, *maps: Any) -> LabelledPictures:
    for number, values in enumerate(maps):
        for folder, array in (("images", np.zeros((*HW, 3), np.uint8)), ("labels", values)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{number}.png")
    return survey(pairs(tmp_path / "images", tmp_path / "labels"), tiny_recipe())


def test_a_sound_set_has_no_notes(tmp_path: Path) -> None:
    found = of(tmp_path, ALL, np.where(ALL == 2, np.uint8(255), ALL))
    assert found.notes == () and [pair.name for pair in found.pairs] == ["0", "1"]


def test_pictures_without_label_maps_have_nothing_to_say(tmp_path: Path) -> None:
    of(tmp_path, ALL)
    found = survey(pairs(tmp_path / "images"), tiny_recipe())
    assert found.notes == () and len(found.pairs) == 1


SKIPPED = (
    "cannot be scored against, and their pictures are skipped (more than half would end the "
    "comparison)"
)


@pytest.mark.parametrize(
    ("maps", "notes"),
    [
        ([ALL % 2] * 2, ("1 of 3 classes without a pixel in the whole set: red",)),
        ([ALL % 2, ALL], ()),
        ([ALL * 0], ("2 of 3 classes without a pixel in the whole set: green, red",)),
        (
            [np.where(np.arange(96).reshape(HW) < 90, np.uint8(255), ALL)],
            ("93.8 % of the pixels are 255, which is not scored",),
        ),
        ([ALL, ALL, ALL + 1], (f"1 of 3 label maps {SKIPPED}",)),  # the last has a 3
        ([ALL, ALL[:4]], (f"1 of 2 label maps {SKIPPED}",)),
    ],
)
def test_what_is_suspicious_is_said_in_a_line(
    tmp_path: Path, maps: list[Any], notes: tuple[str, ...]
) -> None:
    assert of(tmp_path, *maps).notes == notes


BLACK_AND_WHITE = np.where(ALL == 1, np.uint8(255), np.uint8(0))


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (
            [BLACK_AND_WHITE] * 2,
            "hold 0 and 255 only; 255 is not scored, so nothing but the class 'blue' is left",
        ),
        ([ALL * 0 + 255], "no pixel of the label maps has a class: every one is 255"),
        (
            [ALL + 1, ALL + 7, ALL],
            "2 of 3 label maps cannot be scored against, which is more than half; the first: label "
            "map .*0.png has label 3; "
            "the classes are 0 to 2",
        ),
        ([ALL[:4]], "1 of 1 label map cannot .* than half; the first: .*0.png is 4x12, its"),
    ],
)
def test_a_set_that_cannot_be_scored_is_refused(
    tmp_path: Path, maps: list[Any], words: str
) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        of(tmp_path, *maps)
    assert caught.value.hint
    by_share = "more than half" in caught.value.message
    assert by_share == ("up to half of the label maps may be unusable" in caught.value.hint)


def test_black_and_white_beside_real_label_maps_is_a_matter_of_the_set(tmp_path: Path) -> None:
    assert of(tmp_path, BLACK_AND_WHITE, ALL).notes == ()
