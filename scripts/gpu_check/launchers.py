"""The kernels called with torch tensors through their C interface (plugins/include).

The library may be that of a GPU, or the emulator's, whose tensors are on the CPU. Outputs and
workspaces are the caller's, so that a call can be timed and captured in a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_TYPES = {torch.float32: 0, torch.float16: 1}
_CHANNELS_LAST = 2


class Launchers:
    """A library of kernels. An error of a launcher is raised as RuntimeError."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, number, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_size_t
        kind, real = ctypes.c_int, ctypes.c_float
        numbers: list[Any] = [number] * 5
        pointers: list[Any] = [pointer] * 4
        library.pointrend_sample.argtypes = [pointer, kind, pointer, pointer, *numbers, pointer]
        library.pointrend_uncertain_workspace.argtypes = numbers[:2]
        library.pointrend_uncertain_workspace.restype = size
        room: list[Any] = [pointer, size, pointer]  # and the stream
        library.pointrend_uncertain.argtypes = [pointer, pointer, *numbers[:3], *room]
        maps: list[Any] = [pointer, pointer, kind, pointer]
        sizes: list[Any] = [pointer, pointer, *numbers[:4], pointer]
        library.pointrend_roi_align.argtypes = [*maps, *numbers[:3], *sizes]
        library.pointrend_nms_workspace.argtypes = numbers[:3]
        library.pointrend_nms_workspace.restype = size
        library.pointrend_nms.argtypes = [*pointers, *numbers[:4], real, real, *room]
        up: list[Any] = [pointer, kind, pointer, pointer]
        library.pointrend_upsample_two_best.argtypes = [*up, *numbers, pointer]
        one_map: list[Any] = [pointer, kind, *numbers[:3]]
        library.pointrend_sample_cells.argtypes = [
            *(*one_map, *one_map, pointer),
            *(*numbers[:2], pointer, *numbers[:2], pointer),
        ]
        points: list[Any] = [pointer, pointer, kind, pointer]
        library.pointrend_refine_logits.argtypes = [
            *(pointer, kind, *points),
            *(*numbers, number, pointer),
        ]
        library.pointrend_refine_labels.argtypes = [pointer, *points, *numbers[:4], pointer]
        library.pointrend_error_string.restype = ctypes.c_char_p
        self.library = library

    def check(self, error: int) -> None:
        """Raise RuntimeError for an error that a launcher returned."""
        if error:
            text: bytes = self.library.pointrend_error_string(error)
            raise RuntimeError(text.decode())

    def sample(self, features: Tensor, points: Tensor, out: Tensor) -> None:
        """Sample (N, C, H, W) at (N, P, 2) float32 into out (N, C, P) of the features' type."""
        n, c, h, w = features.shape
        pointers = (_at(features), _TYPES[features.dtype], _at(points), _at(out))
        shape = (n, c, h, w, points.shape[1])
        self.check(self.library.pointrend_sample(*pointers, *shape, stream_of(out)))

    def sample_channels_last(self, features: Tensor, points: Tensor, out: Tensor) -> None:
        """Sample features that :func:`channels_last` rearranged into out (N, C, P) float16."""
        n, h, w, _ = features.shape
        pointers = (_at(features), _CHANNELS_LAST, _at(points), _at(out))
        shape = (n, out.shape[1], h, w, points.shape[1])
        self.check(self.library.pointrend_sample(*pointers, *shape, stream_of(out)))

    def sample_cells(
        self, fine: Tensor, coarse: Tensor, indices: Tensor, grid: tuple[int, int], out: Tensor
    ) -> None:
        """Sample (N, C, h, w) and (N, D, h', w') at cells (N, K) of a grid into out (N, E, K)."""
        maps = [(_at(each), _TYPES[each.dtype], *each.shape[1:]) for each in (fine, coarse)]
        sizes = (out.shape[0], out.shape[2])
        call = self.library.pointrend_sample_cells
        self.check(call(*maps[0], *maps[1], _at(indices), *grid, _at(out), *sizes, stream_of(out)))

    def uncertain_workspace(self, n: int, length: int, device: torch.device) -> Tensor:
        """Allocate the workspace of :meth:`uncertain`."""
        return _workspace(self.library.pointrend_uncertain_workspace(n, length), device)

    def uncertain(self, uncertainty: Tensor, out: Tensor, workspace: Tensor) -> None:
        """Select the k highest of each row (N, L) float32 into out (N, k) int64, ascending."""
        shape = (*uncertainty.shape, out.shape[1])
        room = (_at(workspace), workspace.numel())
        pointers = (_at(uncertainty), _at(out))
        self.check(self.library.pointrend_uncertain(*pointers, *shape, *room, stream_of(out)))

    def roi_align(
        self,
        boxes: Tensor,
        features: Sequence[Tensor],
        first_level: int,
        out: Tensor,
        sampling_ratio: int = 0,
    ) -> None:
        """Pool boxes (N, R, 4) from 1 to 4 maps (N, C, h, w) into out (N * R, C, side, side)."""
        n, r, _ = boxes.shape
        levels, side = len(features), out.shape[2]
        addresses = (ctypes.c_void_p * levels)(*(_at(each) for each in features))
        heights = (ctypes.c_int32 * levels)(*(each.shape[2] for each in features))
        widths = (ctypes.c_int32 * levels)(*(each.shape[3] for each in features))
        inputs = (_at(boxes), addresses, _TYPES[out.dtype], _at(out))
        shape = (n, r, out.shape[1], heights, widths, first_level, levels, side, sampling_ratio)
        self.check(self.library.pointrend_roi_align(*inputs, *shape, stream_of(out)))

    def nms_workspace(self, n: int, groups: int, length: int, device: torch.device) -> Tensor:
        """Allocate the workspace of :meth:`nms`."""
        return _workspace(self.library.pointrend_nms_workspace(n, groups, length), device)

    def nms(
        self,
        boxes: Tensor,
        scores: Tensor,
        out: tuple[Tensor, Tensor],
        thresholds: tuple[float, float],
        workspace: Tensor,
    ) -> None:
        """Suppress boxes (N, G, L, 4) by scores (N, G, L) into indices (N, k) and count (N,) int64.

        ``thresholds`` are of the IoU and of the score, in this order.
        """
        indices, count = out
        pointers = (_at(boxes), _at(scores), _at(indices), _at(count))
        shape = (*scores.shape, indices.shape[1])
        room = (_at(workspace), workspace.numel())
        self.check(
            self.library.pointrend_nms(*pointers, *shape, *thresholds, *room, stream_of(indices))
        )

    def upsample_two_best(
        self, logits: Tensor, scale: int, uncertainty: Tensor, labels: Tensor | None
    ) -> None:
        """Upsample logits (N, C, h, w) into uncertainty (N, L) float32 and labels (N, L) int32.

        L is h * w * scale**2; without ``labels`` there is uncertainty alone.
        """
        written = (_at(uncertainty), None if labels is None else _at(labels))
        pointers = (_at(logits), _TYPES[logits.dtype], *written)
        call = self.library.pointrend_upsample_two_best
        self.check(call(*pointers, *logits.shape, scale, stream_of(uncertainty)))

    def refine_logits(
        self, logits: Tensor, indices: Tensor, point_logits: Tensor, scale: int, out: Tensor
    ) -> None:
        """Upsample (N, C, h, w) into out float32, with (N, C, K) put in at indices (N, K) int64."""
        base = (_at(logits), _TYPES[logits.dtype])
        points = (_at(indices), _at(point_logits), _TYPES[point_logits.dtype])
        sizes = (*logits.shape, scale, indices.shape[1])
        call = self.library.pointrend_refine_logits
        self.check(call(*base, *points, _at(out), *sizes, stream_of(out)))

    def refine_labels(
        self, labels: Tensor, indices: Tensor, point_logits: Tensor, out: Tensor
    ) -> None:
        """Copy labels (N, L) int32 into out, with those of (N, C, K) put in at indices (N, K)."""
        points = (_at(indices), _at(point_logits), _TYPES[point_logits.dtype])
        n, classes, k = point_logits.shape
        sizes = (n, classes, labels.shape[1], k)
        call = self.library.pointrend_refine_labels
        self.check(call(_at(labels), *points, _at(out), *sizes, stream_of(out)))


def channels_last(features: Tensor) -> Tensor:
    """Turn (N, C, H, W) into (N, H, W, C rounded up to a multiple of 8), padded with NaN."""
    n, c, h, w = features.shape
    last = features.new_full((n, h, w, -(-c // 8) * 8), torch.nan)
    last[..., :c] = features.permute(0, 2, 3, 1)
    return last


def stream_of(tensor: Tensor) -> int | None:
    """Return the handle of the current stream of a tensor's device; None on the CPU."""
    if not tensor.is_cuda:
        return None
    stream: int = torch.cuda.current_stream(tensor.device).cuda_stream
    return stream


def _at(tensor: Tensor) -> int:
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous")
    return tensor.data_ptr()


def _workspace(size: int, device: torch.device) -> Tensor:
    """Allocate ``size`` bytes at a 256-byte aligned address, filled with 0xA5."""
    if size == 0:
        raise RuntimeError("no workspace for these sizes: an argument is outside its range")
    room = torch.full((size + 256,), 0xA5, dtype=torch.uint8, device=device)
    skip = -room.data_ptr() % 256
    return room[skip : skip + size]
