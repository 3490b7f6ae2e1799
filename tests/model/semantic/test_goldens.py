"""The reference model answers as detectron2 did."""

from __future__ import annotations

import pytest
import torch

from tests.golden_differences import CASES, differences, golden_model


@pytest.mark.parametrize("case", CASES)
def test_within_tolerance(case: str) -> None:
    found = differences(case)
    beyond = {name: value for name, (value, (_, accept, _)) in found.items() if value > accept}
    assert not beyond
    assert len(found) >= 7


def test_a_planted_error_is_seen() -> None:
    model = golden_model("semantic_fpn_R50")
    weight = model.coarse_head.predictor.weight
    original = weight.clone()
    try:
        with torch.no_grad():
            weight.mul_(1.001)
        found = differences("semantic_fpn_R50_sem_128x192")
        assert found["coarse"][0] > found["coarse"][1].accept
    finally:
        weight.data.copy_(original)
