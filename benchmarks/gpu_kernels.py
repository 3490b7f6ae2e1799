"""Time the kernels on a GPU against torch, and as a share of the memory's bandwidth.

    POINTREND_KERNELS=libpointrend_kernels.so python benchmarks/gpu_kernels.py [--runs 50]

Points are those that the selection of a smooth picture gives, in its order. Bytes are those that
the memory has to move: 32-byte sectors read, points and results. The aim is 0.7 of the bandwidth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import gpu_program
from gpu_timing import Timer, copy_bandwidth, corner_cells, sectors

from scripts.gpu_check import inputs
from scripts.gpu_check.launchers import Launchers, channels_last
from scripts.gpu_check.parts import give

SAMPLER_AIM, SELECTION_AIM = 0.7, 3.0


def uncertain_points(height: int, width: int, k: int) -> Tensor:
    """Return the centres (1, K, 2) of the k most uncertain cells, in ascending order of index."""
    indices = inputs.contours(1, height, width, 1).topk(k, dim=1).indices.sort(dim=1).values
    x = (indices % width + 0.5) / width
    y = (indices // width + 0.5) / height
    return torch.stack((x, y), dim=2).float()


def roi_points(rois: int, height: int, width: int) -> Tensor:
    """Lay a 28 x 28 grid in each of R boxes: (1, R * 784, 2), relative to a map of stride 4."""
    boxes = inputs.boxes_inside(1, rois, 4 * height, 4 * width, 1)[0]
    steps = (torch.arange(28) + 0.5) / 28
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=2).reshape(1, -1, 2)
    at = boxes[:, None, :2] + grid * (boxes[:, None, 2:] - boxes[:, None, :2])
    return (at / torch.tensor([4.0 * width, 4.0 * height])).reshape(1, -1, 2)


def bytes_moved(points: Tensor, shape: tuple[int, int, int, int], form: str) -> int:
    """Count the bytes that sampling has to read and write; ``form`` is fp32, fp16 or hwc8."""
    _, c, h, w = shape
    element = 4 if form == "fp32" else 2
    if form == "hwc8":
        read = int(corner_cells(points, h, w).numel()) * -(-c // 8) * 16
    else:
        read = sectors(points, c, h, w, element)
    count = points.shape[1]
    return read + count * 8 + count * c * element


def sampler(lib: Launchers, timer: Timer, bandwidth: float) -> dict[str, Any]:
    """Time the sampler in its three forms against grid_sample."""
    cases = {
        "p2 of 1024x2048, 8192 points": ((1, 256, 256, 512), uncertain_points(1024, 2048, 8192)),
        "coarse of 1024x2048, 8192 points": ((1, 19, 256, 512), uncertain_points(1024, 2048, 8192)),
        "p2 of 800x1216, 100 RoIs of 784": ((1, 256, 200, 304), roi_points(100, 200, 304)),
    }
    results = {}
    for name, (shape, points) in cases.items():
        at = points.cuda()
        grid = (2.0 * at - 1.0).unsqueeze(2)
        for form in ("fp32", "fp16", "hwc8"):
            maps = inputs.features(shape, 1).cuda()
            maps = maps if form == "fp32" else maps.half()
            out = torch.empty((1, shape[1], at.shape[1]), dtype=maps.dtype, device="cuda")
            given = channels_last(maps) if form == "hwc8" else maps
            launch = lib.sample_channels_last if form == "hwc8" else lib.sample
            times = timer(_bound(launch, given, at, out))
            theirs = timer(_bound(F.grid_sample, maps, grid.to(maps.dtype), align_corners=False))
            moved = bytes_moved(points, shape, form)
            results[f"{name}, {form}"] = {
                **_compared(times.as_json(), theirs.as_json()),
                "bytes": moved,
                "share_of_bandwidth": moved / (times.cold_us * 1e-6) / bandwidth,
            }
    return results


def selection(lib: Launchers, timer: Timer, bandwidth: float) -> dict[str, Any]:
    """Time the selection against torch.topk, which may resolve ties either way."""
    results = {}
    for n, height, width, k in ((1, 1024, 2048, 8192), (1, 512, 1024, 8192), (100, 224, 224, 784)):
        values = inputs.contours(n, height, width, 1).cuda()
        length = height * width
        out = torch.empty((n, k), dtype=torch.int64, device="cuda")
        workspace = lib.uncertain_workspace(n, length, torch.device("cuda"))
        times = timer(_bound(lib.uncertain, values, out, workspace))
        theirs = timer(_bound(torch.topk, values, k, dim=1))
        moved = 4 * n * length + 8 * n * k
        results[f"{k} of {length}, {n} rows"] = {
            **_compared(times.as_json(), theirs.as_json()),
            "bytes": moved,
            "share_of_bandwidth": moved / (times.cold_us * 1e-6) / bandwidth,
        }
    return results


def pooling(lib: Launchers, timer: Timer) -> dict[str, Any]:
    """Time RoIAlign of 1000 and of 100 boxes. Its bytes depend on overlaps: no share is given."""
    results = {}
    for half in (False, True):
        maps = [inputs.features((1, 256, 800 >> n, 1216 >> n), n).cuda() for n in range(2, 6)]
        maps = [each.half() for each in maps] if half else maps
        for count, side in ((1000, 7), (100, 14)):
            boxes = inputs.boxes_inside(1, count, 800, 1216, 1).cuda()
            out = torch.empty((count, 256, side, side), dtype=maps[0].dtype, device="cuda")
            times = timer(_bound(lib.roi_align, boxes, maps, 2, out))
            results[f"{count} boxes, side {side}, {'fp16' if half else 'fp32'}"] = times.as_json()
    return results


def suppression(lib: Launchers, timer: Timer) -> dict[str, Any]:
    """Time NMS of proposals and of boxes, against torchvision's where it is installed."""
    results = {}
    for groups, k, iou, score, kind in (
        (5, 1000, 0.7, -1.0, "random"),
        (80, 100, 0.5, 0.05, "low"),
    ):
        shape = (1, groups, 1000)
        boxes, scores = inputs.crowd(*shape, 1).cuda(), inputs.scores(kind, shape, 2).cuda()
        out = (
            torch.empty((1, k), dtype=torch.int64, device="cuda"),
            torch.empty((1,), dtype=torch.int64, device="cuda"),
        )
        workspace = lib.nms_workspace(*shape, torch.device("cuda"))
        times = timer(_bound(lib.nms, boxes, scores, out, (iou, score), workspace)).as_json()
        theirs = _torchvision_nms(timer, boxes[0], scores[0], iou, score)
        found = _compared(times, theirs) if theirs else {"ours": times, "torch": "not installed"}
        results[f"{groups} groups of 1000, best {k}"] = found
    return results


def _torchvision_nms(
    timer: Timer, boxes: Tensor, scores: Tensor, iou: float, score: float
) -> dict[str, Any] | None:
    try:
        batched_nms = import_module("torchvision.ops").batched_nms
    except (ImportError, RuntimeError):
        return None
    group = torch.arange(len(boxes), device="cuda")[:, None].expand_as(scores).reshape(-1)

    def call() -> Tensor:
        live = (scores.reshape(-1) > score).nonzero()[:, 0]
        at, of = boxes.reshape(-1, 4)[live], scores.reshape(-1)[live]
        kept: Tensor = batched_nms(at, of, group[live], iou)
        return kept

    return timer(call, capture=False).as_json()  # it waits for a count


def _bound(call: Callable[..., object], *words: Any, **named: Any) -> Callable[[], object]:
    return lambda: call(*words, **named)


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    cold, warm = (theirs[key] / ours[key] for key in ("cold_us", "warm_us"))
    return {"ours": ours, "torch": theirs, "ratio_cold": cold, "ratio_warm": warm}


def summary(result: dict[str, Any]) -> list[str]:
    """Return a line for each figure: times, ratios, and whether an aim was met."""
    lines = [f"copy {result['copy_bytes_per_second'] / 1e9:.0f} GB/s"]
    for kind in ("sampler", "selection", "pooling", "suppression"):
        for name, found in result.get(kind, {}).items():
            ours = found.get("ours", found)
            line = f"{kind} {name}: {ours['cold_us']:.1f} us"
            if "ratio_cold" in found:
                line += f", torch {found['torch']['cold_us']:.1f} us, {found['ratio_cold']:.2f}x"
            if "share_of_bandwidth" in found:
                line += f", {100 * found['share_of_bandwidth']:.0f} % of bandwidth"
            lines.append(line)
    for aim, (value, wanted) in result.get("aims", {}).items():
        lines.append(
            f"aim {aim}: {value:.2f} of {wanted}, {'met' if value >= wanted else 'missed'}"
        )
    return lines


def aims(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return each aim's figure and aim: of the sampler's best form, of the large selection."""
    large = [found for name, found in result["sampler"].items() if "100 RoIs" in name]
    of_many = result["selection"]["8192 of 2097152, 1 rows"]
    return {
        "sampler, share of bandwidth": (
            max(found["share_of_bandwidth"] for found in large),
            SAMPLER_AIM,
        ),
        "selection of 8192 from 2M over torch.topk": (of_many["ratio_cold"], SELECTION_AIM),
    }


def measure(lib: Launchers, timer: Timer) -> int:
    """Time every kernel and give the figures; returns the exit code."""
    bandwidth = copy_bandwidth(timer)
    result: dict[str, Any] = {"copy_bytes_per_second": bandwidth}
    result["sampler"] = sampler(lib, timer, bandwidth)
    result["selection"] = selection(lib, timer, bandwidth)
    result["aims"] = aims(result)
    result["pooling"] = pooling(lib, timer)
    result["suppression"] = suppression(lib, timer)
    give({**result, "summary": summary(result)})
    return 0


if __name__ == "__main__":
    sys.exit(gpu_program.run(__doc__, measure, runs=50))
