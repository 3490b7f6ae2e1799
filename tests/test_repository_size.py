"""What git tracks stays small: what follows from something else is made, not stored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.repository import ROOT

MOST = 28_000_000
"""Bytes of all tracked files together."""


def tracked() -> list[Path]:
    """The files git tracks here; skips the test where there is no git or no repository."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not list the files here: {error}")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    if not paths:
        pytest.skip("git tracks no file here")
    return [path for path in paths if path.is_file()]


def test_tracked_files_are_small() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) <= MOST, f"the largest: {largest}"


def test_no_file_is_tracked_twice() -> None:
    seen: dict[bytes, Path] = {}
    for path in tracked():
        data = path.read_bytes()
        assert len(data) < 4096 or data not in seen, f"{path} is {seen.get(data)} again"
        seen[data] = path
