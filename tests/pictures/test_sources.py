"""Files, folders and patterns: what they stand for, and where their pictures' results belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.sources import find_pictures

FILES = ("a/1.png", "a/2.jpg", "a/notes.txt", "a/.hidden.png", "a/deep/1.png", "b/1.png", "c/x.md")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def places(folder: Path, *sources: str, recursive: bool = False) -> list[str]:
    found = find_pictures([folder / source for source in sources], recursive=recursive)
    for file, place in found.places.items():
        assert file.is_file() and (found.root / place).resolve() == file.resolve()
    return [place.as_posix() for place in found.places.values()]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a"], ["1.png", "2.jpg"]),
        (["a/1.png"], ["1.png"]),
        (["a", "b"], ["a/1.png", "a/2.jpg", "b/1.png"]),
        (["b", "a/2.jpg"], ["b/1.png", "a/2.jpg"]),
        (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"]),
        (["a", "a/deep"], ["1.png", "2.jpg", "deep/1.png"]),
        (["a/1.png", "a", "a/../a/1.png"], ["1.png", "2.jpg"]),
        (["a/*.png"], ["1.png"]),
        (["a/?.*"], ["1.png", "2.jpg"]),
        (["a/*"], ["1.png", "2.jpg", "deep/1.png"]),
        (["*/1.png"], ["a/1.png", "b/1.png"]),
        (["**/1.png"], ["a/1.png", "a/deep/1.png", "b/1.png"]),
        (["[ab]"], ["a/1.png", "a/2.jpg", "b/1.png"]),
    ],
)
def test_what_sources_stand_for(folder: Path, sources: list[str], expected: list[str]) -> None:
    assert places(folder, *sources) == expected


def test_recursive_searches_every_folder(folder: Path) -> None:
    assert places(folder, "a", "b", recursive=True) == [
        *("a/1.png", "a/2.jpg", "a/deep/1.png", "b/1.png"),
    ]
    assert places(folder, "[a]", recursive=True) == ["1.png", "2.jpg", "deep/1.png"]


def test_a_quoted_pattern_is_what_the_shell_makes_of_it(folder: Path) -> None:
    by_shell = [str(path.relative_to(folder)) for path in sorted(folder.glob("*/1.png"))]
    assert places(folder, "*/1.png") == places(folder, *by_shell)


def test_two_stars_go_through_no_link(folder: Path) -> None:
    (folder / "a" / "circle").symlink_to(folder / "a")
    (folder / "spelt").symlink_to(folder / "a")
    (folder / "b" / "2.png").symlink_to(folder / "a" / "1.png")
    assert places(folder, "**/*.png") == ["a/1.png", "a/deep/1.png", "b/1.png", "b/2.png"]
    assert places(folder, "a/**") == ["1.png", "2.jpg", "deep/1.png"]
    assert [
        place.as_posix() for place in find_pictures([folder / "spelt/**/1.png"]).places.values()
    ] == ["1.png", "deep/1.png"]


def test_sub_folders_left_out_are_known(folder: Path) -> None:
    assert find_pictures([folder / "a"]).sub_folders == (folder / "a" / "deep",)
    assert find_pictures([folder / "a", folder / "a" / "deep"]).sub_folders == ()
    assert find_pictures([folder / "a"], recursive=True).sub_folders == ()
    assert find_pictures([folder / "a" / "1.png"]).sub_folders == ()


def test_a_path_that_exists_is_no_pattern(tmp_path: Path) -> None:
    for name in ("shot[1].png", "shot1.png"):
        (tmp_path / name).touch()
    assert places(tmp_path, "shot[1].png") == ["shot[1].png"]
    assert places(tmp_path, "shot[12].png") == ["shot1.png"]


def test_paths_as_the_user_wrote_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = find_pictures(["a"])
    assert (found.root, list(found.places)) == (Path("a"), [Path("a/1.png"), Path("a/2.jpg")])
    found = find_pictures(["a/1.png", folder / "b"])
    assert found.root == folder and list(found.places) == [Path("a/1.png"), folder / "b" / "1.png"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["a", "nowhere"], "no such picture or folder: .*nowhere"),
        (["a", "c"], "no picture in the folder .*c"),
        (["a", "*.jpg"], r"the pattern .*\*.jpg matches nothing"),
        (["a/*.txt"], r"the pattern .* matches 1 path, but no picture"),
        (["c*"], r"the pattern .* matches 1 path, but no picture"),
        ([], "no picture is given"),
    ],
)
def test_sources_without_pictures(folder: Path, sources: list[str], words: str) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        find_pictures([folder / source for source in sources])
    assert caught.value.hint
