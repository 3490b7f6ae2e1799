"""An engine's labels beside its graph's: what passes in each precision, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.errors import ParityError
from pointrend_deploy.parity.engine_comparison import EngineComparison, Outputs, Sides
from pointrend_deploy.parity.semantic.engine import compare_labels
from pointrend_deploy.pictures.canvas import Fitted
from tests.fixtures.tiny_bundle import tiny_manifest

HW = (100, 100)
PICTURE = Fitted(np.zeros((3, 128, 128), np.float32), HW, HW)
GRAPH = np.zeros((1, 128, 128), np.uint8)


def labels(differ: int) -> Outputs:
    """The graph's labels but for so many pixels of the picture, and all of the padding."""
    found = GRAPH.copy()
    found[0, 100:] = found[0, :, 100:] = 2
    picture = np.zeros(HW, np.uint8)
    picture.reshape(-1)[:differ] = 1
    found[0, : HW[0], : HW[1]] = picture
    return {"labels": found}


def compared(differ: int, fp32: int | None = None) -> EngineComparison:
    beside = None if fp32 is None else labels(fp32)
    sides = Sides([PICTURE], {"labels": GRAPH}, labels(differ), beside)
    return compare_labels(tiny_manifest(HW), sides)


@pytest.mark.parametrize(
    ("differ", "fp32", "passes"),
    [
        (2, None, True),  # 0.02 %
        (3, None, False),
        (2, 0, True),  # rounding decided nothing between the graph and FP32
        (3, 0, False),
        (42, 20, True),  # twice as much as it decided there, and what FP32 may
        (43, 20, False),
        (500, 5000, True),  # but never more than 5 %
        (501, 5000, False),
    ],
)
def test_how_many_may_differ(differ: int, fp32: int | None, passes: bool) -> None:
    found = compared(differ, fp32)
    assert bool(found) is passes
    assert found.agreement == 1 - differ / 10_000
    assert found.line() == f"{1 - differ / 10_000:.4%} of 10000 labels agree"
    if passes:
        found.raise_if_failed("model.engine")
        return
    with pytest.raises(ParityError, match=r"model\.engine ran and does not answer as its graph"):
        found.raise_if_failed("model.engine")
