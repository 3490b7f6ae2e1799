"""The kept figures of FP16 and INT8 meet the bars, and the guides state them as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.precision_table import METHODS, OUT, ROOT, SCORES, markdown, percent

FP16_AGREEMENT = 0.9995
DROPS = {
    "fp16": {"miou": 0.001, "mask_ap": 0.001},
    "int8": {"miou": 0.005, "mask_ap": 0.005, "boundary_iou_2px": 0.01},
}
"""By how much a score may be below FP32's."""
INT8_FLOPS = 0.95


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OUT.read_text())
    return found


def beyond(rows: dict[str, Any], name: str) -> list[str]:
    """Scores of a row that are further below FP32's than they may be."""
    limits = DROPS[name.split()[0]]
    return [
        key
        for key, limit in limits.items()
        if key in rows["fp32"] and rows["fp32"][key] - rows[name][key] > limit
    ]


def test_the_kept_figures_meet_the_bars(kept: dict[str, Any]) -> None:
    for model, rows in kept["models"].items():
        assert set(rows) == {"fp32", "fp16", *(f"int8 {method}" for method in METHODS)}
        assert beyond(rows, "fp16") == [], model
        good = [method for method in METHODS if not beyond(rows, f"int8 {method}")]
        assert "entropy" in good, "the method that is taken unless another is asked for"
        for method in METHODS:
            assert rows[f"int8 {method}"]["int8_flops"] >= INT8_FLOPS
    assert kept["models"]["semantic"]["fp16"]["agreement"] >= FP16_AGREEMENT


def test_a_lower_score_is_beyond_its_bar(kept: dict[str, Any]) -> None:
    rows = json.loads(json.dumps(kept["models"]["semantic"]))
    rows["int8 entropy"]["miou"] = rows["fp32"]["miou"] - 0.0051
    rows["fp16"]["miou"] = rows["fp32"]["miou"] - 0.0011
    assert beyond(rows, "int8 entropy") == ["miou"]
    assert beyond(rows, "fp16") == ["miou"]


def test_the_guide_states_the_kept_figures(kept: dict[str, Any]) -> None:
    guide = (ROOT / "docs" / "quantization.md").read_text()
    for line in markdown(kept).splitlines():
        assert line in guide


def test_the_readme_states_the_kept_figures(kept: dict[str, Any]) -> None:
    text = (ROOT / "README.md").read_text()
    for model, keys in SCORES.items():
        for key in keys:
            rows = kept["models"][model]
            scores = (rows[name][key] for name in ("fp32", "fp16", "int8 entropy"))
            digits = 2 if key == "agreement" else 1
            assert " | ".join(percent(score, digits) for score in scores) + " |" in text, key


def test_a_table_has_a_row_for_every_graph() -> None:
    row: dict[str, Any] = {"agreement": 0.99968, "miou": 0.8242, "boundary_iou_2px": 0.5191}
    text = markdown({"models": {"semantic": {"fp32": {**row, "agreement": None}, "int8 mse": row}}})
    assert "| FP32 | - | 82.42 | 51.91 |" in text
    assert "| INT8, mse | 99.968 | 82.42 | 51.91 |" in text
    assert text.splitlines()[1] == "|---|---|---|---|"
