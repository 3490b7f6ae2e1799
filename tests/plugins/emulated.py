"""The plugin kernels on the CPU, called with torch tensors through their C interface."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

FEATURE_TYPES = {torch.float32: 0, torch.float16: 1}
CHANNELS_LAST = 2


class EmulatedKernels:
    """The compiled emulator library. An error of a launcher is raised as RuntimeError."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        pointer, number, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_size_t
        self.library.pointrend_sample.argtypes = [
            *(pointer, ctypes.c_int, pointer, pointer),
            *(number, number, number, number, number, pointer),
        ]
        self.library.pointrend_sample_rois.argtypes = [
            *(pointer, pointer, pointer, ctypes.c_int, pointer, pointer, pointer),
            *([number] * 9),
            pointer,
        ]
        self.library.pointrend_uncertain_workspace.argtypes = [number, number]
        self.library.pointrend_uncertain_workspace.restype = size
        self.library.pointrend_uncertain.argtypes = [
            *(pointer, pointer, number, number, number, pointer, size, pointer)
        ]
        real = ctypes.c_float
        self.library.pointrend_roi_align.argtypes = [
            *(pointer, pointer, ctypes.c_int, pointer, number, number, number, pointer, pointer),
            *(number, number, number, number, pointer),
        ]
        self.library.pointrend_nms_workspace.argtypes = [number, number, number]
        self.library.pointrend_nms_workspace.restype = size
        self.library.pointrend_nms.argtypes = [
            *(pointer, pointer, pointer, pointer, number, number, number, number),
            *(real, real, pointer, size, pointer),
        ]
        self.library.pointrend_error_string.restype = ctypes.c_char_p
        self.library.host_order_key.argtypes = [ctypes.c_float]
        self.library.host_order_key.restype = ctypes.c_uint32

    def backwards(self, backwards: bool) -> None:
        """Run blocks, warps and lanes from the last to the first."""
        self.library.emulator_backwards(int(backwards))

    def check(self, error: int) -> None:
        if error:
            raise RuntimeError(self.library.pointrend_error_string(error).decode())

    def sample(self, features: Tensor, points: Tensor) -> Tensor:
        """(N, C, H, W) at (N, P, 2) -> (N, C, P)."""
        features, points = features.contiguous(), points.contiguous()
        n, c, h, w = features.shape
        p = points.shape[1]
        out = torch.full((n, c, p), 77.0, dtype=features.dtype)
        kind = FEATURE_TYPES[features.dtype]
        pointers = (features.data_ptr(), kind, points.data_ptr(), out.data_ptr())
        self.check(self.library.pointrend_sample(*pointers, n, c, h, w, p, None))
        return out

    def sample_channels_last(self, features: Tensor, points: Tensor) -> Tensor:
        """The same of float16 features, given with the channels last and filled up with NaN."""
        n, c, h, w = features.shape
        p = points.shape[1]
        last = torch.full((n, h, w, -(-c // 8) * 8), torch.nan, dtype=torch.float16)
        last[..., :c] = features.permute(0, 2, 3, 1)
        points = points.contiguous()
        out = torch.full((n, c, p), 77.0, dtype=torch.float16)
        pointers = (last.data_ptr(), CHANNELS_LAST, points.data_ptr(), out.data_ptr())
        self.check(self.library.pointrend_sample(*pointers, n, c, h, w, p, None))
        return out

    def uncertain(self, uncertainty: Tensor, k: int) -> Tensor:
        """(N, L) -> (N, k), from a workspace full of other numbers."""
        uncertainty = uncertainty.contiguous()
        n, length = uncertainty.shape
        size = self.library.pointrend_uncertain_workspace(n, length)
        room, workspace = used_workspace(size)
        out = torch.full((n, k), -1, dtype=torch.int64)
        pointers = (uncertainty.data_ptr(), out.data_ptr())
        error = self.library.pointrend_uncertain(*pointers, n, length, k, workspace, size, None)
        self.check(error)
        del room
        return out

    def roi_align(
        self,
        boxes: Tensor,
        features: Sequence[Tensor],
        first_level: int,
        side: int,
        sampling_ratio: int = 0,
    ) -> Tensor:
        """(N, R, 4) on one to four maps (N, C, h, w) -> (N * R, C, side, side)."""
        boxes, maps = boxes.contiguous(), [feature.contiguous() for feature in features]
        n, r, _ = boxes.shape
        c = maps[0].shape[1]
        out = torch.full((n * r, c, side, side), 77.0, dtype=maps[0].dtype)
        addresses = (ctypes.c_void_p * len(maps))(*(feature.data_ptr() for feature in maps))
        heights = (ctypes.c_int32 * len(maps))(*(feature.shape[2] for feature in maps))
        widths = (ctypes.c_int32 * len(maps))(*(feature.shape[3] for feature in maps))
        inputs = (boxes.data_ptr(), addresses, FEATURE_TYPES[maps[0].dtype])
        shape = (n, r, c, heights, widths, first_level, len(maps), side, sampling_ratio)
        self.check(self.library.pointrend_roi_align(*inputs, out.data_ptr(), *shape, None))
        return out

    def nms(
        self, boxes: Tensor, scores: Tensor, k: int, iou: float, score: float
    ) -> tuple[Tensor, Tensor]:
        """(N, G, L, 4) and (N, G, L) -> indices (N, k) and count (N,)."""
        boxes, scores = boxes.contiguous(), scores.contiguous()
        n, groups, length = scores.shape
        size = self.library.pointrend_nms_workspace(n, groups, length)
        room, workspace = used_workspace(size)
        indices = torch.full((n, k), -1, dtype=torch.int64)
        count = torch.full((n,), -1, dtype=torch.int64)
        pointers = (boxes.data_ptr(), scores.data_ptr(), indices.data_ptr(), count.data_ptr())
        shape = (n, groups, length, k)
        self.check(self.library.pointrend_nms(*pointers, *shape, iou, score, workspace, size, None))
        del room
        return indices, count


def used_workspace(size: int) -> tuple[Tensor, int]:
    """Memory full of other numbers, and the 256-byte aligned address of ``size`` bytes in it."""
    room = torch.randint(0, 256, (size + 256,), dtype=torch.uint8)
    return room, room.data_ptr() + -room.data_ptr() % 256
