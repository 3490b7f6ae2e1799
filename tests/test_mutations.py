"""Files that were damaged are read or refused: no traceback, nothing written elsewhere, no hang.

``benchmarks/mutations.py`` is the long form.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pointrend_deploy.engine.build import _decoded
from pointrend_deploy.engine.layers import read_layers
from pointrend_deploy.errors import DeployError
from pointrend_deploy.onnx_session import open_session
from pointrend_deploy.parity.record.runs import decode
from pointrend_deploy.quantize import ranges
from pointrend_deploy.recipe.read import load_any_recipe
from pointrend_deploy.truth.coco import read_coco
from tests.fixtures import instance_data
from tests.fixtures.mutations import Kind, changed, kinds, paths, read_damaged, toml, use_recipe
from tests.repository import ROOT

EACH = 12
SLOWEST_S = 10.0
RECIPES = sorted((ROOT / "export").glob("*.toml"))
_FOR_A_KEY: dict[str, tuple[Any, ...]] = {
    "wrong type": ([["x"]], True),
    "wrong word": ("res<",),
    "out of range": (-1, 0, 10**12),
    "not finite": (float("nan"), float("-inf")),
}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, ...]:
    return kinds(tmp_path_factory.mktemp("sound"))


def test_sound_files_are_read(every_kind: tuple[Kind, ...], tmp_path: Path) -> None:
    for number, kind in enumerate(every_kind):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / kind.name).write_bytes(kind.whole)
        kind.read(folder / kind.name)


def test_damaged_files_are_read_or_refused(
    every_kind: tuple[Kind, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    monkeypatch.chdir(beside)
    refused = 0
    for number, kind in enumerate(every_kind):
        for seed in range(EACH):
            folder = tmp_path / f"{number}-{seed}"
            folder.mkdir()
            before = {entry.name for entry in tmp_path.iterdir()}
            start = time.monotonic()
            refused += read_damaged(kind, seed, folder) == "refused"
            assert time.monotonic() - start < SLOWEST_S, f"{kind.name}, seed {seed}"
            assert {entry.name for entry in tmp_path.iterdir()} == before
            assert not list(beside.iterdir())
    assert capsys.readouterr().out == "", "what is refused prints nothing on stdout"
    assert refused > EACH * len(every_kind) // 3, "the damage is damage"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_key_of_every_recipe(path: Path, tmp_path: Path) -> None:
    """Dropped, of a wrong type, a wrong word, out of range or not finite: used, or refused."""
    table = msgspec.toml.decode(path.read_bytes())
    file = tmp_path / path.name
    file.write_bytes(toml(table))
    assert load_any_recipe(file) == load_any_recipe(path)
    table["classes"] = {  # a few of 80 classes: the same keys, read in a tenth of the time
        key: value[:3] if isinstance(value, list) else value
        for key, value in table["classes"].items()
    }
    file.write_bytes(toml(table))
    use_recipe(load_any_recipe(file))
    values = [value for values in _FOR_A_KEY.values() for value in values]
    for key in paths(table):
        tables = [changed(table, key, None, drop=True)]
        tables += [changed(table, key, value) for value in values]
        for wrong in tables:
            file.write_bytes(toml(wrong))
            try:
                recipe = load_any_recipe(file)
                use_recipe(recipe)
            except DeployError as error:
                assert error.message, key


NESTED = b"[" * 100_000


def coco(raw: bytes, folder: Path) -> object:
    (folder / "coco.json").write_bytes(raw)
    return read_coco(folder / "coco.json", folder, instance_data.recipe())


def recipe(raw: bytes, folder: Path) -> object:
    (folder / "recipe.toml").write_bytes(raw)
    return load_any_recipe(folder / "recipe.toml")


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (lambda raw, _: decode(raw), b'{"runs": {"\xff": 1}}'),
        (lambda raw, _: ranges.decode(raw, "ranges.json"), b'{"recipe": "\xff"}'),
        (lambda raw, _: read_layers(raw.decode()), b'{"Layers": ' + NESTED),
        (coco, b'{"images": [{"id": 1, "file_name": "\xff"}]}'),
        (recipe, b'name = "\xff"'),
        (recipe, b"name = " + NESTED),
    ],
)
def test_text_that_is_no_utf8_and_lists_in_lists_without_end(
    tmp_path: Path, read: Callable[[bytes, Path], object], raw: bytes
) -> None:
    """What one reader of ten thousand damaged files did not refuse, in all readers."""
    with pytest.raises(DeployError):
        read(raw, tmp_path)


def test_the_last_line_of_a_builder_that_died() -> None:
    assert _decoded(b'{"type": "\xff"}') is None
    assert _decoded(b'{"type"') is None


def test_a_graph_that_does_not_load_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    text = b"\x08\x0a\x12\x02\xff\xff:\x00"  # a producer's name that is no UTF-8
    with pytest.raises(DeployError):
        open_session(text)
    assert capfd.readouterr().out == ""
