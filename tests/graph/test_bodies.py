"""The function bodies in ONNX Runtime: exact selection for any k, sampling as the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from pointrend_deploy.errors import DeployError
from pointrend_deploy.graph.bodies import sample_body, sample_cells_body, uncertain_body
from pointrend_deploy.graph.ops import (
    DOMAIN,
    PLUGIN_ATTRIBUTES,
    SAMPLE,
    SAMPLE_CELLS,
    UNCERTAIN,
    VERSION,
    sample_cells,
)
from pointrend_deploy.graph.options import TOPK_LIMIT
from pointrend_deploy.model.pointrend import point_sample


def run_op(
    name: str, body: onnx.FunctionProto, inputs: list[np.ndarray], output: int, **attributes: Any
) -> np.ndarray:
    types = {np.dtype("float32"): 1, np.dtype("int64"): 7, np.dtype("float16"): 10}
    names = [f"in{index}" for index in range(len(inputs))]
    node = onnx.helper.make_node(
        name, names, ["out"], domain=DOMAIN, **PLUGIN_ATTRIBUTES, **attributes
    )
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, types[value.dtype], value.shape)
            for n, value in zip(names, inputs, strict=True)
        ],
        [onnx.helper.make_tensor_value_info("out", output, None)],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    return result


def select(uncertainty: np.ndarray, k: int) -> np.ndarray:
    return run_op(UNCERTAIN, uncertain_body(k), [uncertainty], 7, k=k)


def stable(uncertainty: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-uncertainty, axis=1, kind="stable")[:, :k]


CELLS = 10_000


@pytest.mark.parametrize("k", [1, 3840, 3841, 7680, 7681, 8192, CELLS - 1, CELLS])
@pytest.mark.parametrize("levels", [5, 2**20])
def test_selection_is_a_stable_sort(k: int, levels: int) -> None:
    """``levels`` = 5 makes nearly every cell a tie."""
    uncertainty = -np.random.default_rng(k).integers(0, levels, (2, CELLS)).astype(np.float32)
    assert np.array_equal(select(uncertainty, k), stable(uncertainty, k))


def test_all_tied_takes_the_first_cells() -> None:
    found = select(np.zeros((1, CELLS), np.float32), 8192)
    assert np.array_equal(found[0], np.arange(8192))


def test_minus_infinity_is_taken_once() -> None:
    """-inf marks what a round has taken; a -inf of the input must not be confused with it."""
    uncertainty = np.full((1, CELLS), -np.inf, np.float32)
    uncertainty[0, 17] = -1.0
    found = select(uncertainty, CELLS)
    assert np.array_equal(np.sort(found[0]), np.arange(CELLS))
    assert found[0, 0] == 17


def test_no_round_is_larger_than_tensorrt_takes() -> None:
    rounds = [
        onnx.numpy_helper.to_array(node.attribute[0].t).tolist()
        for node in uncertain_body(8192).node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    ]
    assert rounds == [[TOPK_LIMIT], [TOPK_LIMIT], [512]]


def test_k_below_one_is_refused() -> None:
    with pytest.raises(DeployError, match="at least 1"):
        uncertain_body(0)


def test_sampling_equals_the_definition() -> None:
    """Points on the border blend with zero; points outside are zero."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((2, 5, 9, 12)).astype(np.float32)
    points = generator.uniform(-0.2, 1.2, (2, 300, 2)).astype(np.float32)
    points[:, 0] = 0.0
    found = run_op(SAMPLE, sample_body(), [features, points], 1)
    wanted = point_sample(torch.from_numpy(features), torch.from_numpy(points)).numpy()
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(found - np.roll(wanted, 1, axis=2)).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("fine", "coarse"), [(5, 3), (6, 4), (16, 19)])
def test_two_maps_are_sampled_at_cells(fine: int, coarse: int, dtype: str) -> None:
    """Of sizes that differ, with zeros up to a multiple of 8 channels."""
    generator = np.random.default_rng(0)
    maps = [
        generator.standard_normal((2, fine, 9, 12)).astype(dtype),
        generator.standard_normal((2, coarse, 3, 4)).astype(dtype),
    ]
    indices = np.stack([generator.permutation(18 * 25)[:300] for _ in range(2)])
    missing = -(fine + coarse) % 8
    kind = 1 if dtype == "float32" else 10
    grid = {"grid_height": 18, "grid_width": 25}
    found = run_op(SAMPLE_CELLS, sample_cells_body(missing), [*maps, indices], kind, **grid)
    features, logits = (torch.from_numpy(each).float() for each in maps)
    wanted = sample_cells(features, logits, torch.from_numpy(indices), 18, 25).numpy()
    assert found.dtype == dtype and found.shape == (2, fine + coarse + missing, 300)
    assert np.abs(found - wanted).max() < (1e-5 if dtype == "float32" else 2e-3)
    assert (found[:, fine + coarse :] == 0).all()
    assert np.abs(found - np.roll(wanted, 1, axis=2)).max() > 1e-2
