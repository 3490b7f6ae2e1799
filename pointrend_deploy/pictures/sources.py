"""The pictures that files, folders and patterns name, each with its place in the results."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.files import SUFFIXES, list_pictures, sub_folders
from pointrend_deploy.wording import count_of

_WILD = frozenset("*?[")
"""Characters that make a path which does not exist a pattern."""


@dataclass(frozen=True)
class Pictures:
    """The pictures that sources name.

    Attributes:
        root: the deepest folder that every source lies in: of one folder that folder itself, of
            one picture the folder it is in.
        places: for each picture's file, in the order of the sources, its path relative to
            ``root``. No two are the same.
        folders: the folders that were searched, and those of the pictures that were named singly.
        sub_folders: the folders directly in those that were searched, where they were left out.
    """

    root: Path
    places: dict[Path, Path]
    folders: tuple[Path, ...]
    sub_folders: tuple[Path, ...] = ()


def find_pictures(sources: Sequence[str | Path], *, recursive: bool = False) -> Pictures:
    """Find the pictures of files, folders and patterns. No picture is opened.

    A path that exists is a picture or a folder of pictures, whatever characters are in it; see
    :func:`pointrend_deploy.pictures.files.list_pictures`. Any other path with ``*``, ``?`` or
    ``[`` in it is a pattern, as in a shell: it stands for the pictures that it matches and for the
    pictures in the folders that it matches. ``**`` matches any number of folders. A picture that
    is named twice is listed once.

    Args:
        sources: at least one.
        recursive: whether to list the pictures in sub-folders as well.

    Raises:
        DeployError: a path is missing, a folder has no picture, a pattern matches none, or the
            sources lie on different drives.
    """
    if not sources:
        raise DeployError("no picture is given", "name pictures or folders of pictures")
    found: dict[Path, Path] = {}
    folders: dict[Path, Path] = {}
    left: dict[Path, Path] = {}
    for path in (path for source in sources for path in _paths(Path(source), recursive)):
        folder = path if path.is_dir() else path.parent
        folders.setdefault(_whole(folder), folder)
        for file in list_pictures(path, recursive=recursive):
            found.setdefault(_whole(file), file)
        if not recursive:
            left.update({_whole(each): each for each in sub_folders(path)})
    above, root = _root(folders)
    places = {file: whole.relative_to(above) for whole, file in found.items()}
    searched = {whole: path for whole, path in left.items() if whole not in folders}
    return Pictures(root, places, tuple(folders.values()), tuple(searched.values()))


def _paths(source: Path, recursive: bool) -> list[Path]:
    """List the pictures and folders that a source stands for: itself, or what it matches."""
    if source.exists() or not _WILD & set(str(source)):
        return [source]
    # as in a shell, * matches no hidden file; Path.glob's does
    names = sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207
    matches = [Path(name) for name in names]
    if "**" in source.parts:  # nor does ** go through links to folders, which may be circles
        matches = [path for path in matches if not _through_link(path, source)]
    taken = [path for path in matches if _has_pictures(path, recursive)]
    if not taken:
        found = f"{count_of(len(matches), 'path')}, but no picture" if matches else "nothing"
        raise DeployError(
            f"the pattern {source} matches {found}",
            "* stands for any characters except /, ? for one, [ab] for a or b, ** for any number "
            f"of folders; pictures are files that end in {' '.join(SUFFIXES)}",
        )
    return taken


def _through_link(path: Path, pattern: Path) -> bool:
    """Whether a folder of a match is a link, from the first folder on that is not spelt out."""
    spelt = next(place for place, part in enumerate(pattern.parts) if _WILD & set(part))
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    return any(each.is_symlink() for each in folders if len(each.parts) > spelt)


def _has_pictures(path: Path, recursive: bool) -> bool:
    """Whether a path that a pattern matches is a picture, by its name, or a folder with some."""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    try:
        return bool(list_pictures(path, recursive=recursive))
    except DeployError:
        return False


def _whole(path: Path) -> Path:
    """Return a path from the root on, without ``..``; links are not followed."""
    return Path(os.path.normpath(path.absolute()))


def _root(folders: dict[Path, Path]) -> tuple[Path, Path]:
    """Find the deepest folder above all folders: its whole path, and as the user wrote it."""
    if len(folders) == 1:
        ((whole, folder),) = folders.items()
        return whole, folder
    try:
        above = Path(os.path.commonpath(list(folders)))
    except ValueError as error:  # Windows: no folder is above two drives
        raise DeployError(
            f"the pictures lie on different drives: {', '.join(map(str, folders))}",
            "run those of each drive by themselves, each with its own --out",
        ) from error
    return above, folders.get(above, above)
