"""The Python of the guides runs as it stands there, on a small semantic and instance bundle."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.tiny_bundle import save_pictures, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle
from tests.repository import ROOT

GUIDE = ROOT / "docs" / "python.md"


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_guide_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    write_things_bundle(tmp_path / "instances")
    picture = bright_picture(64, 128, [0, 3])
    save_pictures(tmp_path, {"street.png": picture})
    (tmp_path / "street.png").rename(tmp_path / "street.jpg")  # by its bytes, not by its name
    monkeypatch.chdir(tmp_path)
    found = blocks(GUIDE.read_text())
    assert len(found) >= 5
    names: dict[str, object] = {}
    for number, block in enumerate(found):
        exec(compile(block, f"{GUIDE.name}, block {number + 1}", "exec"), names)
    said = capsys.readouterr().out
    assert said.startswith("cat 0.") and "hint: check the path" in said
    with Image.open("overlay.png") as drawn:
        assert drawn.size[0] >= 128 and np.asarray(drawn).std() > 0
