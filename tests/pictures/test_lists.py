"""Lists of pictures, and pictures that show nothing or the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.lists import is_blank, pixels_sha256, read_list


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for index, name in enumerate(("a.png", "sub/b c.png")):
        Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("mark", ["  ", " *"])
def test_a_list_of_sha256sum_is_read(folder: Path, mark: str) -> None:
    a, b = sha256(folder / "a.png"), sha256(folder / "sub/b c.png")
    lines = f"# mine\n\n{b}{mark}sub/b c.png\r\n{a.upper()}{mark}a.png\n"
    first, second = read_list(write(folder, b"\xef\xbb\xbf" + lines.encode()))
    assert (first.path, first.name, first.sha256) == (folder / "sub/b c.png", "sub/b c.png", b)
    assert (second.name, second.sha256) == ("a.png", a)


def test_a_path_alone_is_hashed_here(folder: Path) -> None:
    (found,) = read_list(write(folder, "a.png\n"))
    assert found.sha256 == sha256(folder / "a.png")


def test_escaped_names_of_sha256sum(folder: Path) -> None:
    name = "line\nend\\.png"
    (folder / "a.png").rename(folder / name)
    (found,) = read_list(write(folder, f"\\{sha256(folder / name)}  line\\nend\\\\.png\n"))
    assert found.path == folder / name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"# none\n{'0' * 64}  a.png\n", r"line 2: .*a\.png is not the picture that was listed"),
        ("a.png\nmissing.png\n", r"line 2: there is no picture .*missing\.png"),
        ("sub\n", "line 1: there is no picture"),
        ("\n# nothing\n", "names no picture"),
        (b"\x89PNG\0\0", "not text"),
    ],
)
def test_a_list_that_does_not_hold_is_refused(
    folder: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(DeployError, match=message):
        read_list(write(folder, text))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot read"):
        read_list(tmp_path / "none")


def test_what_is_blank() -> None:
    random = np.random.default_rng(0)
    plain = np.full((64, 64, 3), (200, 10, 90), np.uint8)
    assert is_blank(plain)
    assert is_blank(plain + random.integers(0, 4, plain.shape, np.uint8))
    one_channel = plain.copy()
    one_channel[:32, :, 2] = 0
    assert not is_blank(one_channel)
    assert not is_blank(random.integers(0, 256, plain.shape, np.uint8))


def test_pixels_are_known_whatever_the_file() -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixels_sha256(rgb) == pixels_sha256(np.asfortranarray(rgb))
    assert pixels_sha256(rgb) != pixels_sha256(rgb.reshape(4, 2, 3))
    assert pixels_sha256(rgb) != pixels_sha256(rgb + 1)
