"""An engine's detections beside its graph's: near ties pass, lost and moved ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend_deploy.parity.engine_comparison import EngineComparison, Outputs, Sides
from pointrend_deploy.parity.gates import detections_limit, engine_limit
from pointrend_deploy.parity.instance.engine import compare_detections
from pointrend_deploy.pictures.canvas import Fitted
from tests.fixtures.tiny_instances import things_manifest

HW = (96, 96)
ROOM = 30
PICTURE = Fitted(np.zeros((3, *HW), np.float32), HW, HW)
MANIFEST = things_manifest(HW, detections=ROOM)
LEAST = MANIFEST.instances[0].box_head.score_threshold


def outputs(scores: list[float], moved: float = 0.0, masks: float = 1.0) -> Outputs:
    """Detections in places of their own, by falling score; the first is moved by some pixels."""
    count = len(scores)
    boxes = np.zeros((1, ROOM, 4), np.float32)
    places = np.array([(x, y) for y in range(0, 96, 16) for x in range(0, 96, 16)], np.float32)
    boxes[0, :count, :2] = places[:count]
    boxes[0, :count, 2:] = places[:count] + 15
    boxes[0, 0] += moved
    padded = np.zeros((1, ROOM), np.float32)
    padded[0, :count] = scores
    cells = np.zeros((1, ROOM, 4, 4), np.float32)
    cells[0, :count] = 1.0
    cells[0, :count, 2:] = masks
    return {
        "num_detections": np.array([count]),
        "boxes": boxes,
        "scores": padded,
        "classes": np.zeros((1, ROOM), np.int64),
        "masks": cells,
    }


def falling(count: int, last: float) -> list[float]:
    return [*np.linspace(0.9, 0.5, count - 1).tolist(), last]


def compared(graph: Outputs, engine: Outputs, fp32: Outputs | None = None) -> EngineComparison:
    return compare_detections(MANIFEST, Sides([PICTURE], graph, engine, fp32))


FEW = falling(8, 0.3)


def test_the_same_and_equal_up_to_rounding() -> None:
    found = compared(outputs(FEW), outputs([score + 5e-4 for score in FEW], moved=0.04))
    assert found
    assert (found.number, found.agreement, found.mask_iou) == (8, 1.0, found.mask_iou)
    assert found.mask_iou is not None and found.mask_iou > 0.99


@pytest.mark.parametrize(
    "engine", [outputs(FEW, moved=0.1), outputs([FEW[0] + 0.01, *FEW[1:]]), outputs(FEW[:-1])]
)
def test_a_box_a_score_or_a_detection_of_its_own(engine: Outputs) -> None:
    found = compared(outputs(FEW), engine)
    assert not found
    assert found.agreement == 7 / 8


def test_a_detection_at_the_threshold_is_a_near_tie() -> None:
    tied = [*FEW[:-1], LEAST + 5e-4]
    assert compared(outputs(tied), outputs(tied[:-1]))
    assert compared(outputs(tied[:-1]), outputs(tied))
    clear = [*FEW[:-1], LEAST + 5e-3]
    assert not compared(outputs(clear), outputs(clear[:-1]))


def test_the_last_of_a_full_list_is_a_near_tie() -> None:
    full = falling(ROOM, 0.4)
    other = outputs(falling(ROOM, 0.4004))
    boxes = other["boxes"].copy()
    boxes[0, -1] = (80, 80, 95, 95)  # another object took the last place
    assert compared(outputs(full), {**other, "boxes": boxes}).agreement == 1.0


def test_masks_that_differ() -> None:
    assert not compared(outputs(FEW), outputs(FEW, masks=0.0))
    assert not compared(outputs(FEW), outputs(FEW, masks=0.0), fp32=outputs(FEW))


def test_lower_precisions_may_differ_twice_as_much_as_their_graph_does_from_fp32() -> None:
    graph = outputs(FEW)
    moved = outputs([score - 0.01 for score in FEW], moved=0.5)
    assert not compared(graph, moved)
    assert compared(graph, moved, fp32=outputs([score + 0.01 for score in FEW], moved=0.5))
    lost = outputs(FEW[:-1])
    assert not compared(graph, lost, fp32=graph)
    near = outputs([*FEW[:-1], LEAST + 0.015])
    assert not compared(near, lost, fp32=near)
    assert compared(near, lost, fp32=outputs([*FEW[:-1], LEAST + 0.025]))


def test_limits() -> None:
    assert detections_limit(0) == detections_limit(9) == 1.0
    assert detections_limit(10) == 0.9
    assert detections_limit(100) == 0.98
    assert detections_limit(1000) == 0.99
    assert engine_limit(0.98, None) == 0.98
    assert engine_limit(0.98, 1.0) == 0.98
    assert engine_limit(0.98, 0.99) == pytest.approx(0.96)
    assert engine_limit(0.98, 0.5) == 0.95
    assert engine_limit(0.9, 0.5) == 0.9
