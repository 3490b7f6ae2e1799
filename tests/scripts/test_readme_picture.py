"""The picture at the head of the README is what its script makes from the demonstration model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import readme_picture
from scripts.unpack_demo import unpack
from tests.repository import ROOT

CLOSE = 4.0
"""Mean difference of values 0..255 that compression and rounding on another machine may make."""


@pytest.fixture(scope="module")
def made() -> np.ndarray:
    unpack()
    return np.asarray(readme_picture.make()).astype(int)


def test_the_stored_picture_is_made_by_the_script(made: np.ndarray) -> None:
    stored = np.asarray(Image.open(readme_picture.OUT).convert("RGB")).astype(int)
    assert stored.shape == made.shape
    assert np.abs(stored - made).mean() < CLOSE
    shifted = np.roll(made, 300, axis=1)
    assert np.abs(stored - shifted).mean() > 2 * CLOSE, "other pictures are seen to differ"


def test_the_readme_opens_with_it_and_it_is_small() -> None:
    path = Path(readme_picture.OUT)
    assert path.stat().st_size < 300_000
    head = (ROOT / "README.md").read_text().splitlines()[:6]
    assert any(f"({path.relative_to(ROOT).as_posix()})" in line for line in head)
