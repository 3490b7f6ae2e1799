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
        kind = ctypes.c_int
        self.library.pointrend_upsample_two_best.argtypes = [
            *(pointer, kind, pointer, pointer, number, number, number, number, number, pointer)
        ]
        self.library.pointrend_sample_cells.argtypes = [
            *(pointer, kind, number, number, number),
            *(pointer, kind, number, number, number),
            *(pointer, number, number, pointer, number, number, pointer),
        ]
        self.library.pointrend_refine_logits.argtypes = [
            *(pointer, kind, pointer, pointer, kind, pointer),
            *(number, number, number, number, number, number, pointer),
        ]
        self.library.pointrend_refine_labels.argtypes = [
            *(pointer, pointer, pointer, kind, pointer, number, number, number, number, pointer)
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
        last = padded_last(features)
        points = points.contiguous()
        out = torch.full((n, c, p), 77.0, dtype=torch.float16)
        pointers = (last.data_ptr(), CHANNELS_LAST, points.data_ptr(), out.data_ptr())
        self.check(self.library.pointrend_sample(*pointers, n, c, h, w, p, None))
        return out

    def sample_cells(
        self,
        fine: Tensor,
        coarse: Tensor,
        indices: Tensor,
        grid: tuple[int, int],
        last: tuple[bool, bool] = (False, False),
    ) -> Tensor:
        """(N, C, h, w) and (N, D, h', w') at cells (N, K) of a grid; ``last``: which is HWC8."""
        kept, maps = [], []
        for each, channels_last in zip((fine, coarse), last, strict=True):
            kept.append(padded_last(each) if channels_last else each.contiguous())
            kind = CHANNELS_LAST if channels_last else FEATURE_TYPES[each.dtype]
            maps.append((kept[-1].data_ptr(), kind, *each.shape[1:]))
        n, k = indices.shape
        channels = -(-(fine.shape[1] + coarse.shape[1]) // 8) * 8
        out = torch.full((n, channels, k), 77.0, dtype=fine.dtype)
        where = (indices.data_ptr(), *grid, out.data_ptr())
        call = self.library.pointrend_sample_cells
        self.check(call(*maps[0], *maps[1], *where, n, k, None))
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

    def uncertainty(self, logits: Tensor, scale: int) -> Tensor:
        """(N, C, h, w) -> (N, h * w * scale**2) float32."""
        return self._two_best(logits, scale, None)

    def labels(self, logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """The same, and labels int32."""
        labels = torch.full((logits.shape[0], _cells(logits, scale)), -1, dtype=torch.int32)
        return self._two_best(logits, scale, labels), labels

    def _two_best(self, logits: Tensor, scale: int, labels: Tensor | None) -> Tensor:
        logits = logits.contiguous()
        out = torch.full((logits.shape[0], _cells(logits, scale)), 77.0)
        found = None if labels is None else labels.data_ptr()
        pointers = (logits.data_ptr(), FEATURE_TYPES[logits.dtype], out.data_ptr(), found)
        call = self.library.pointrend_upsample_two_best
        self.check(call(*pointers, *logits.shape, scale, None))
        return out

    def refine_logits(
        self, logits: Tensor, indices: Tensor, point_logits: Tensor, scale: int
    ) -> Tensor:
        """(N, C, h, w), indices (N, K), points (N, C, K) -> (N, C, h * scale, w * scale)."""
        n, c, h, w = logits.shape
        out = torch.full((n, c, h * scale, w * scale), 77.0)
        kinds = FEATURE_TYPES[logits.dtype], FEATURE_TYPES[point_logits.dtype]
        pointers = (logits.data_ptr(), kinds[0], indices.data_ptr(), point_logits.data_ptr())
        shape = (kinds[1], out.data_ptr(), *logits.shape, scale, indices.shape[1])
        self.check(self.library.pointrend_refine_logits(*pointers, *shape, None))
        return out

    def refine_labels(self, labels: Tensor, indices: Tensor, point_logits: Tensor) -> Tensor:
        """(N, L) int32, indices (N, K), points (N, C, K) -> (N, L)."""
        out = torch.full_like(labels, -7)
        kind = FEATURE_TYPES[point_logits.dtype]
        pointers = (labels.data_ptr(), indices.data_ptr(), point_logits.data_ptr(), kind)
        n, c, k = point_logits.shape
        sizes = (out.data_ptr(), n, c, labels.shape[1], k)
        self.check(self.library.pointrend_refine_labels(*pointers, *sizes, None))
        return out


def padded_last(features: Tensor) -> Tensor:
    """float16 (N, H, W, C rounded up to a multiple of 8), filled up with NaN."""
    n, c, h, w = features.shape
    last = torch.full((n, h, w, -(-c // 8) * 8), torch.nan, dtype=torch.float16)
    last[..., :c] = features.permute(0, 2, 3, 1)
    return last


def _cells(logits: Tensor, scale: int) -> int:
    return logits.shape[-2] * logits.shape[-1] * scale**2


def used_workspace(size: int) -> tuple[Tensor, int]:
    """Memory full of other numbers, and the 256-byte aligned address of ``size`` bytes in it."""
    room = torch.randint(0, 256, (size + 256,), dtype=torch.uint8)
    return room, room.data_ptr() + -room.data_ptr() % 256
