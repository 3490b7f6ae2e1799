"""Goldens are read whole, and what is made again is checked against what detectron2 answered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.goldens import read
from tests.goldens.read import HERE, SAME_TRUNK, read_golden, read_input


def test_arrays_made_again_are_those_of_detectron2() -> None:
    listed = json.loads((HERE / "made_again.json").read_text())
    assert set(listed) == {"inst_288x416", *SAME_TRUNK}
    for case, digests in listed.items():
        arrays = read_golden(case)
        assert {name: read.digest(arrays[name]) for name in digests} == digests
    final = read_golden("inst_288x416")
    assert final["final_sel_n"].shape == (3, 224, 224)
    assert final["final_sel_s4"].shape == (28, 56, 56)


@pytest.mark.parametrize(
    ("case", "source", "name"),
    [
        ("inst_288x416", "inst_288x416", "init_sel"),
        ("maskrcnn_inst_288x416", "inst_288x416", "p2_s"),
    ],
)
def test_a_changed_source_is_refused(
    monkeypatch: pytest.MonkeyPatch, case: str, source: str, name: str
) -> None:
    stored = read.stored

    def changed(of: str) -> read.Arrays:
        arrays = stored(of)
        if of == source:
            arrays[name] = np.nextafter(arrays[name], np.float32(np.inf))
        return arrays

    monkeypatch.setattr(read, "stored", changed)
    with pytest.raises(ValueError, match="not what detectron2 answered"):
        read_golden(case)


def test_pictures_are_blue_first() -> None:
    for picture in json.loads((HERE / "inputs" / "output_sizes.json").read_text()):
        image, out_hw = read_input(picture)
        assert image.dtype == np.uint8 and image.shape[2] == 3 and image.flags.c_contiguous
        assert min(out_hw) >= 128
    assert read_input("inst_288x416")[1] == (360, 520)
