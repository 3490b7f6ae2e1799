"""TensorRT's calibration caches, read and written."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.tensorrt_cache import read_cache, write_cache


def test_a_cache_of_tensorrt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text(
        "TRT-8601-EntropyCalibration2\ninput: 3c010a14\n(Unnamed Layer* 3): x: 3F800000\n\n"
    )
    found = read_cache(path)
    assert list(found) == ["input", "(Unnamed Layer* 3): x"]
    assert found["input"] == pytest.approx(1.000244122, rel=1e-9)
    assert found["(Unnamed Layer* 3): x"] == 127


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "made.cache"
    amax = {"backbone.add.out": 3.7, "p2": 1e-20, "wide": 1e30}
    write_cache(path, amax)
    lines = path.read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert lines[1] == f"backbone.add.out: {struct.pack('>f', 3.7 / 127).hex()}"
    assert read_cache(path) == pytest.approx(amax, rel=1e-6)
    assert list(read_cache(path)) == list(amax)
    write_cache(path, amax, version="8601")
    assert path.read_text().startswith("TRT-8601-")


BAD_LINES = {
    "p2: 3c010a1": "line 3: 'p2: 3c010a1' is not",
    "p2 3c010a14": "line 3: 'p2 3c010a14' is not",
    "p2: 0x3c010a": "line 3: 'p2: 0x3c010a' is not",
    ": 3c010a14": "line 3",
    "p2: 00000000": "line 3: the scale of p2 is 0",
    "p2: 7fc00000": "line 3: the scale of p2 is nan",
    "p2: 7f800000": "line 3: the scale of p2 is inf",
    "p2: bc010a14": "line 3: the scale of p2 is -0.007",
    "first: 3c010a14": "line 3: a second scale of first",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items())
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.cache"
    path.write_text(f"TRT-100300-EntropyCalibration2\nfirst: 3c010a14\n{line}\n")
    with pytest.raises(DeployError, match=message):
        read_cache(path)


NO_CACHES = {
    b"": "its first line",
    b"p2: 3c010a14\n": "its first line",
    b"TRT-100300-EntropyCalibration2\n": "has no scale",
    b"TRT-1\xff\xfe": "not text",
}


@pytest.mark.parametrize(("raw", "message"), NO_CACHES.items())
def test_what_is_no_cache_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(raw)
    with pytest.raises(DeployError, match=message):
        read_cache(path)
    with pytest.raises(DeployError, match="cannot read"):
        read_cache(tmp_path / "none")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-45, 1e300])
def test_a_range_that_is_none_is_not_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "made.cache"
    with pytest.raises(DeployError, match="as the range of p2"):
        write_cache(path, {"p2": value})
    assert not path.exists()


@pytest.mark.parametrize("name", ["", " p2", "p\n2"])
def test_a_name_that_a_line_cannot_hold_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeployError, match="cannot hold the name"):
        write_cache(tmp_path / "made.cache", {name: 1.0})
