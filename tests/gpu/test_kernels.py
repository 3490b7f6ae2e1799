"""The kernels on a GPU: against float64, twice the same, and in a CUDA graph.

What is compared, and that a planted error is noticed, is tested without a GPU in
tests/test_gpu_check.py.
"""

from __future__ import annotations

import ctypes

import pytest
import torch

from scripts.gpu_check.cases import CASES, Prepared
from scripts.gpu_check.launchers import Launchers
from scripts.gpu_check.references import same_bits

pytestmark = pytest.mark.gpu


def outputs_of(prepared: Prepared, number: int) -> tuple[torch.Tensor, ...]:
    prepared.poison(number)
    prepared.launch()
    torch.cuda.synchronize()
    return tuple(output.clone() for output in prepared.outputs)


@pytest.mark.parametrize("name", CASES)
def test_a_kernel(launchers: Launchers, device: torch.device, name: str) -> None:
    prepared = CASES[name](launchers, device)
    first = outputs_of(prepared, 77)
    assert prepared.wrong() == ""
    assert same_bits(first, outputs_of(prepared, -1))

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        prepared.launch()
    for number in (5, 6):
        prepared.poison(number)
        graph.replay()
        torch.cuda.synchronize()
        assert same_bits(first, prepared.outputs)


def test_a_launcher_runs_on_the_stream_it_is_given(
    launchers: Launchers, device: torch.device
) -> None:
    """Captured on a side stream, a launch on any other stream would end the capture."""
    prepared = CASES["sample fp32, odd"](launchers, device)
    expected = outputs_of(prepared, 77)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        prepared.poison(5)
        prepared.launch()
    side.synchronize()
    assert same_bits(expected, prepared.outputs)


def test_wrong_arguments_launch_nothing(launchers: Launchers, device: torch.device) -> None:
    out = torch.full((4,), 77.0, device=device)
    call = launchers.library.pointrend_sample
    assert call(out.data_ptr(), 0, out.data_ptr(), out.data_ptr(), 0, 1, 1, 1, 1, None) == 1
    assert call(None, 0, out.data_ptr(), out.data_ptr(), 1, 1, 1, 1, 1, None) == 1
    torch.cuda.synchronize()
    assert out.tolist() == [77.0] * 4
    assert isinstance(launchers.library.pointrend_error_string(1), bytes)
    assert ctypes.c_int(launchers.library.pointrend_tensorrt_version()).value >= 0
