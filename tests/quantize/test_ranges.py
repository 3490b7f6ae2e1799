"""The file of ranges: the same bytes for the same ranges, and nothing wrong read from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pointrend_deploy.errors import DeployError
from pointrend_deploy.quantize.ranges import (
    CalibrationPicture,
    Histogram,
    Ranges,
    SkippedPicture,
    TensorRange,
    decode,
    encode,
)

COUNTS = (5, *([0] * 2046), 1)


def example(**changes: Any) -> Ranges:
    fields: dict[str, Any] = {
        "recipe": "small",
        "graphs": {"detector.onnx": "a" * 64, "masks.onnx": "b" * 64},
        "method": "percentile",
        "percentile": 99.9,
        "pictures": (
            CalibrationPicture("ä.png", "0" * 64),
            CalibrationPicture("b.png", "1" * 64, blank=True),
        ),
        "skipped": (
            SkippedPicture("c.png", "cut off", "2" * 64),
            SkippedPicture("d.png", "shows the same as b.png", "3" * 64, duplicate=True),
        ),
        "tensors": {
            "detector.onnx": {
                'odd "name"': TensorRange(3.999, Histogram(4.0, COUNTS)),
                "p2": TensorRange(1.49e-8, Histogram(2.0**-26, COUNTS)),
            },
            "masks.onnx": {},
        },
    }
    return Ranges(**{**fields, **changes})


def test_what_is_written_is_read_back() -> None:
    raw = encode(example())
    assert decode(raw, "here") == example()
    assert encode(decode(raw, "here")) == raw


def test_it_is_json_with_a_line_a_value() -> None:
    raw = encode(example())
    assert json.loads(raw)["tensors"]["detector.onnx"]["p2"]["amax"] == 1.49e-8
    (line,) = (each for each in raw.decode().splitlines() if each.startswith('"p2"'))
    assert json.loads("{" + line + "}")["p2"]["histogram"]["counts"] == list(COUNTS)


@pytest.mark.parametrize("percentile", [None, 50.0])
def test_the_percentile_may_be_absent(percentile: float | None) -> None:
    assert decode(encode(example(percentile=percentile)), "here").percentile == percentile


def one(amax: float, limit: float, counts: tuple[int, ...] = COUNTS) -> dict[str, Any]:
    value = TensorRange(amax, Histogram(limit, counts))
    return {"tensors": {"detector.onnx": {"p2": value}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (one(4.1, 4.0), r"p2: the maximum 4\.1 is not between 0 and the limit 4"),
        (one(-1.0, 4.0), r"p2: the maximum -1"),
        (one(1.0, 3.0), r"the limit 3\.0 is not a power of two"),
        (one(1.0, 0.0), r"the limit 0\.0 is not a power of two"),
        (one(1.0, 2.0, COUNTS[1:]), "2047 bins where 2048"),
        (one(1.0, 2.0, (0,) * 2048), "all zero"),
        (one(1.0, 2.0, (-1, *COUNTS[1:])), "negative"),
        (one(1.0, 2.0, (10**30, *COUNTS[1:])), "more than could be counted"),
        (one(1.0, 4.0), r"the maximum 1\.0 is not in the last bin that has counts"),
        (one(0.0, 4.0), r"the maximum 0\.0 is not in the last bin"),
        (one(1e300, 2.0**1000), "not a power of two that float32 values need"),
        (one(5e-324, 5e-324), "not a power of two that float32 values need"),
        ({"percentile": -3.0}, "the percentile -3 is not above 0 and at most 100"),
        ({"schema": 2}, "has schema 2"),
        ({"graphs": {"masks.onnx": "b" * 64}}, r"ranges of detector\.onnx, which it does not list"),
        ({"method": "mean"}, r"Invalid enum value 'mean' - at `\$\.method`"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeployError, match=message):
        decode(encode(example(**changes)), "here")


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"schema": 1, "more": 2}'])
def test_another_file_is_refused(raw: bytes) -> None:
    with pytest.raises(DeployError, match="here is not a file of ranges"):
        decode(raw, "here")
