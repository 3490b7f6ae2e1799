"""The benchmark of quantised engines: what its table says of its figures."""

from __future__ import annotations

import json

from benchmarks.quantized_engines import table
from tests.repository import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "quantized_engines.json"


def test_a_line_a_model() -> None:
    row = {
        "model": "one",
        "canvas": "512x1024",
        **{f"quantize_{name}_s": second for name, second in (("fp16", 1.26), ("int8", 2.0))},
        **{f"build_{name}_s": 3.0 for name in ("fp32", "fp16", "int8")},
        **{f"engine_{name}_mib": mib for name, mib in (("fp32", 100), ("fp16", 55), ("int8", 30))},
        "layers": 9,
        "int8_meant": 8,
        "int8_found": 7,
        "int8_flops_of_all": 0.873,
    }
    line = table([row]).splitlines()[2]
    assert line == (
        "| one | 512x1024 | 1.3 / 2.0 | 3.0 / 3.0 / 3.0 | 100.0 / 55.0 / 30.0 | 0.55 / 0.30 | "
        "7 of 8 | 7 of 9 | 87.3% |"
    )


def test_the_recorded_run() -> None:
    rows = json.loads(RESULTS.read_text())["rows"]
    assert len(table(rows).splitlines()) == 2 + len(rows)
    for row in rows:
        assert row["int8_found"] == row["int8_meant"], row["model"]
        assert row["layers"] == row["int8_meant"] + sum(row["left_out"].values()), row["model"]
