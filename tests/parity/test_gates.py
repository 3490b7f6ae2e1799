"""The limits on what a lower precision may lose: only drops fail, each by its own limit."""

from __future__ import annotations

import pytest

from pointrend_deploy.parity.gates import (
    DROPS,
    accuracy_gates,
    drop_gates,
    label_gates,
    readable_gate,
    ungated,
)
from pointrend_deploy.parity.record.precisions import PrecisionColumn, PrecisionName

FP32: dict[str, float | None] = {"mIoU": 0.80, "boundary IoU, 2 px": 0.50}


@pytest.mark.parametrize(
    ("precision", "miou", "boundary", "passes"),
    [
        ("fp16", 0.7995, 0.30, [True]),
        ("fp16", 0.7985, 0.50, [False]),
        ("fp16", 0.90, 0.50, [True]),
        ("int8", 0.796, 0.495, [True, True]),
        ("int8", 0.794, 0.495, [False, True]),
        ("int8", 0.796, 0.485, [True, False]),
        ("int8", 0.90, 0.90, [True, True]),
        ("fp32", 0.10, 0.10, []),
    ],
)
def test_drops(precision: PrecisionName, miou: float, boundary: float, passes: list[bool]) -> None:
    held = drop_gates(precision, FP32, {"mIoU": miou, "boundary IoU, 2 px": boundary})
    assert [bool(gate) for gate in held] == passes


def test_instance_figures_have_their_own_limits() -> None:
    fp32 = {"box AP": 0.6, "mask AP": 0.5, "boundary AP": 0.4}
    found = {"box AP": 0.1, "mask AP": 0.494, "boundary AP": 0.392}
    assert [gate.name for gate in drop_gates("int8", fp32, found)] == [
        "drop of mask AP",
        "drop of boundary AP",
    ]
    assert [bool(gate) for gate in drop_gates("int8", fp32, found)] == [False, True]


def test_a_score_that_went_missing_fails_and_one_the_truth_lacks_is_not_held() -> None:
    (gate,) = drop_gates("fp16", FP32, {"mIoU": None})
    assert not gate and gate.value is None
    assert drop_gates("int8", {"mIoU": None}, {"mIoU": 0.3}) == ()
    assert drop_gates("int8", {}, {}) == ()


def test_labels_are_held_for_fp16_only() -> None:
    assert [bool(g) for g in label_gates("fp16", 0.9996, 10**6)] == [True]
    assert [bool(g) for g in label_gates("fp16", 0.9994, 10**6)] == [False]
    assert [bool(g) for g in label_gates("fp16", 0.998, 1000)] == [True], "two pixels of a thousand"
    assert label_gates("int8", 0.1, 10**6) == ()
    assert label_gates("fp32", 0.1, 10**6) == ()


def test_an_answer_that_cannot_be_right_fails_but_holds_no_accuracy() -> None:
    column = PrecisionColumn(precision="int8", runner="onnx", gates=(readable_gate(0),))
    assert column and accuracy_gates(column) == ()
    assert not readable_gate(1)


def test_what_is_not_held_is_said() -> None:
    (told,) = ungated({"fp32": False, "fp16": True, "int8": False}, "--labels")
    assert told.startswith("int8: its accuracy is not gated") and "--labels" in told


def test_every_limit_has_a_reason() -> None:
    for limits in DROPS.values():
        assert all(len(each.reason) > 30 and 0 < each.limit <= 0.01 for each in limits.values())
