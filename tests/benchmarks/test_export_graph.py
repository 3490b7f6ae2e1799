"""The benchmark program at a small size: both forms agree and every figure is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.repository import ROOT


def test_export_graph_benchmark() -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "export_graph.py"), "--json"]
    sizes = ["--size", "128x256", "--points", "256", "--channels", "32", "--runs", "3"]
    done = subprocess.run(
        [*program, *sizes],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["label_agreement"] > 0.9998
    for form in ("detectron2", "ours"):
        figures = result[form]
        assert figures["nodes"] > 10
        assert figures["flops"] > 0
        assert figures["arena_bytes"] > 0
        # Counted bytes assume perfect reuse, which an arena approaches from above.
        assert figures["arena_bytes"] > 0.9 * figures["peak_activation_bytes"]
        assert figures["median_ms"] >= figures["minimum_ms"] > 0
    ours, theirs = result["ours"], result["detectron2"]
    assert ours["peak_activation_bytes"] < theirs["peak_activation_bytes"]
