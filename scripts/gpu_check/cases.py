"""The cases that the kernels are checked on: the recipes' sizes, and small ones of the same kinds.

A case is prepared once: what launches the kernel into its outputs, and what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from pointrend_deploy.graph.ops import cells_channels
from scripts.gpu_check import inputs, references
from scripts.gpu_check.launchers import Launchers, channels_last

NO_SCORE = -3.4e38
"""A score threshold that every finite score is above."""


@dataclass(frozen=True)
class Prepared:
    """A kernel ready to be launched.

    Attributes:
        launch: enqueues it.
        outputs: what it writes.
        wrong: what is wrong with the outputs against the reference; empty where nothing is.
    """

    launch: Callable[[], None]
    outputs: tuple[Tensor, ...]
    wrong: Callable[[], str]

    def poison(self, number: int) -> None:
        """Fill the outputs with something else."""
        for output in self.outputs:
            output.fill_(number)


Case = Callable[[Launchers, torch.device], Prepared]


def sample(
    form: str, shape: tuple[int, int, int, int], count: int, lib: Launchers, device: torch.device
) -> Prepared:
    """Sampling; ``form`` is fp32, fp16 or hwc8, ``shape`` (N, C, H, W)."""
    n, c, h, w = shape
    maps = inputs.features(shape, 1).to(device)
    maps = maps if form == "fp32" else maps.half()
    points = inputs.mixed_points(n, count, h, w, 2).to(device)
    out = torch.empty((n, c, count), dtype=maps.dtype, device=device)
    if form == "hwc8":
        launch = partial(lib.sample_channels_last, channels_last(maps), points, out)
    else:
        launch = partial(lib.sample, maps, points, out)

    def wrong() -> str:
        expected = references.sampled(maps, points)
        allowed = references.tolerance(expected, max(h, w), 1, half=form != "fp32")
        return references.apart(out, expected, allowed)

    return Prepared(launch, (out,), wrong)


def uncertain(
    kind: str, shape: tuple[int, int], k: int, lib: Launchers, device: torch.device
) -> Prepared:
    """Selection of the k highest of rows (N, L) of a kind of inputs.uncertainty."""
    n, length = shape
    values = inputs.uncertainty(kind, n, length, 3).to(device)
    out = torch.empty((n, k), dtype=torch.int64, device=device)
    workspace = lib.uncertain_workspace(n, length, device)
    launch = partial(lib.uncertain, values, out, workspace)
    wrong = lambda: references.different(out, references.highest(values, k))  # noqa: E731
    return Prepared(launch, (out,), wrong)


def roi_align(
    form: str,
    sizes: tuple[int, int, int, int],
    side: int,
    boxes: Tensor,
    lib: Launchers,
    device: torch.device,
    sampling_ratio: int = 0,
) -> Prepared:
    """Pooling from maps of strides 4, 8, ...; ``sizes`` is (levels, C, H, W) of the picture."""
    levels, c, height, width = sizes
    n, r, _ = boxes.shape
    maps = [
        inputs.features((n, c, height >> level, width >> level), level).to(device)
        for level in range(2, 2 + levels)
    ]
    maps = maps if form == "fp32" else [each.half() for each in maps]
    on_device = boxes.to(device)
    out = torch.empty((n * r, c, side, side), dtype=maps[0].dtype, device=device)

    def wrong() -> str:
        expected = references.pooled(maps, on_device, 2, side, sampling_ratio)
        # A position is a start, a number of bins and a sample within the bin, each rounded.
        allowed = references.tolerance(expected, max(maps[0].shape[2:]), 4, half=form != "fp32")
        return references.apart(out, expected, allowed)

    launch = partial(lib.roi_align, on_device, maps, 2, out, sampling_ratio)
    return Prepared(launch, (out,), wrong)


def nms(
    kind: str,
    shape: tuple[int, int, int],
    k: int,
    thresholds: tuple[float, float],
    lib: Launchers,
    device: torch.device,
) -> Prepared:
    """Suppression in groups (N, G, L) with scores of a kind of inputs.scores."""
    boxes = inputs.crowd(*shape, 4).to(device)
    scores = inputs.scores(kind, shape, 5).to(device)
    out = (
        torch.empty((shape[0], k), dtype=torch.int64, device=device),
        torch.empty((shape[0],), dtype=torch.int64, device=device),
    )
    workspace = lib.nms_workspace(*shape, device)
    launch = partial(lib.nms, boxes, scores, out, thresholds, workspace)

    def wrong() -> str:
        return references.unlike(*out, references.kept(boxes, scores, k, *thresholds))

    return Prepared(launch, out, wrong)


def upsample_two_best(
    form: str,
    shape: tuple[int, int, int, int],
    scale: int,
    with_labels: bool,
    lib: Launchers,
    device: torch.device,
) -> Prepared:
    """Labels and uncertainty of upsampled whole-numbered logits (N, C, h, w), of exact sums."""
    logits = inputs.whole_numbers(shape, 7).to(device)
    logits = logits if form == "fp32" else logits.half()
    n, _, h, w = shape
    cells = (n, h * w * scale**2)
    uncertainty = torch.empty(cells, device=device)
    labels = torch.empty(cells, dtype=torch.int32, device=device) if with_labels else None
    out = (uncertainty,) if labels is None else (uncertainty, labels)

    def wrong() -> str:
        expected = references.two_best(logits, scale)
        pairs = zip(out, expected[: len(out)], strict=True)
        return "; ".join(filter(None, (references.different(*pair) for pair in pairs)))

    launch = partial(lib.upsample_two_best, logits, scale, uncertainty, labels)
    return Prepared(launch, out, wrong)


def sample_cells(
    form: str, sizes: tuple[int, int, int, int, int], k: int, lib: Launchers, device: torch.device
) -> Prepared:
    """Two maps at K cells of a grid twice as large; ``sizes`` is (N, C, D, h, w)."""
    n, fine, coarse, h, w = sizes
    maps = [inputs.features((n, c, h, w), 13 + c).to(device) for c in (fine, coarse)]
    maps = maps if form == "fp32" else [each.half() for each in maps]
    indices = inputs.different_cells(n, 4 * h * w, k, 14).to(device)
    channels = cells_channels(fine + coarse)
    out = torch.empty((n, channels, k), dtype=maps[0].dtype, device=device)

    def wrong() -> str:
        expected = references.sampled_cells(maps[0], maps[1], indices, (2 * h, 2 * w))
        allowed = references.tolerance(expected, 2 * max(h, w), 1, half=form != "fp32")
        return references.apart(out, expected, allowed)

    launch = partial(lib.sample_cells, maps[0], maps[1], indices, (2 * h, 2 * w), out)
    return Prepared(launch, (out,), wrong)


def refine(
    form: str, shape: tuple[int, int, int, int], k: int, lib: Launchers, device: torch.device
) -> Prepared:
    """Logits (N, C, h, w) twice as large and labels of as many cells, K points put into both."""
    n, c, h, w = shape
    cells = h * w * 4
    logits, points = inputs.whole_numbers(shape, 9), inputs.whole_numbers((n, c, k), 10)
    labels = inputs.whole_numbers((n, cells), 11).int()
    indices = inputs.different_cells(n, cells, k, 12)
    given = [each if form == "fp32" else each.half() for each in (logits, points)]
    logits_on, points_on = (each.to(device) for each in given)
    labels_on, indices_on = labels.to(device), indices.to(device)
    refined = torch.empty((n, c, h * 2, w * 2), device=device)
    out = torch.empty((n, cells), dtype=torch.int32, device=device)

    def launch() -> None:
        lib.refine_logits(logits_on, indices_on, points_on, 2, refined)
        lib.refine_labels(labels_on, indices_on, points_on, out)

    def wrong() -> str:
        expected = references.refined(logits, labels, indices, points)
        pairs = zip((refined, out), expected, strict=True)
        return "; ".join(filter(None, (references.different(*pair) for pair in pairs)))

    return Prepared(launch, (refined, out), wrong)


def _sampling(small: bool) -> dict[str, Case]:
    sizes: dict[str, tuple[tuple[int, int, int, int], int]] = {
        "p2 of a 1024x2048 picture": ((1, 256, 256, 512), 8192),
        "coarse, 19 classes": ((1, 19, 256, 512), 8192),
        "p2 under 100 RoIs": ((1, 256, 200, 304), 100 * 784),
        "odd": ((2, 17, 45, 80), 333),
        "one cell": ((1, 9, 1, 1), 40),
    }
    if small:
        sizes = {"odd": ((2, 17, 9, 14), 77), "one cell": ((1, 9, 1, 1), 40)}
    cases: dict[str, Case] = {
        f"sample {form}, {name}": partial(sample, form, shape, count)
        for form in ("fp32", "fp16", "hwc8")
        for name, (shape, count) in sizes.items()
    }
    cells = (2, 17, 5, 9, 14) if small else (1, 256, 19, 256, 512)
    for form in ("fp32", "fp16"):
        run = partial(sample_cells, form, cells, 77 if small else 8192)
        cases[f"sample cells of two maps, {form}"] = run
    return cases


def _selection(small: bool) -> dict[str, Case]:
    kinds = ("random", "ties", "all equal", "special", "all NaN", "rare infinities")
    semantic, rois = ((1, 3000), (3, 1030)) if small else ((1, 1024 * 2048), (100, 224 * 224))
    k, k_rois = (700, 300) if small else (8192, 784)
    cases: dict[str, Case] = {
        f"uncertain {k} of {semantic[1]}, {kind}": partial(uncertain, kind, semantic, k)
        for kind in kinds
    }
    for kind in ("random", "special"):
        name = f"uncertain {k_rois} of {rois[1]} for {rois[0]} RoIs, {kind}"
        cases[name] = partial(uncertain, kind, rois, k_rois)
        cases[f"uncertain all, {kind}"] = partial(uncertain, kind, (2, 1025), 1025)
    return cases


def _pooling(small: bool) -> dict[str, Case]:
    height, width, c = (96, 160, 5) if small else (800, 1216, 256)
    many, few = (9, 4) if small else (1000, 100)
    cases: dict[str, Case] = {}
    for form in ("fp32", "fp16"):
        for count, side in ((many, 7), (few, 14)):
            boxes = inputs.boxes_inside(1, count, height, width, 6)
            run = partial(roi_align, form, (4, c, height, width), side, boxes)
            cases[f"roi_align {form}, {count} boxes, side {side}"] = run
        odd = inputs.odd_boxes(height, width)
        for levels in (1, 3):
            run = partial(roi_align, form, (levels, 3, height, width), 7, odd)
            cases[f"roi_align {form}, odd boxes on {levels} levels"] = run
        run = partial(roi_align, form, (4, 3, height, width), 7, odd, sampling_ratio=2)
        cases[f"roi_align {form}, odd boxes, 2 samples a bin"] = run
    return cases


def _suppression(small: bool) -> dict[str, Case]:
    length = 130 if small else 1000
    classes = 4 if small else 80
    return {
        "nms of proposals": partial(nms, "random", (2, 5, length), length, (0.7, NO_SCORE)),
        "nms of boxes": partial(nms, "low", (1, classes, length), 100, (0.5, 0.05)),
        "nms, ties": partial(nms, "ties", (2, 3, 130), 395, (0.5, 0.0)),
        "nms, special scores": partial(nms, "special", (2, 3, 65), 40, (0.5, NO_SCORE)),
    }


def _upsampling(small: bool) -> dict[str, Case]:
    sizes = {
        "1024x2048 by 2": ((1, 19, 512, 1024), 2),
        "1024x2048 by 4": ((1, 19, 256, 512), 4),
        "odd": ((2, 5, 45, 33), 2),
    }
    if small:
        sizes = {"odd": ((2, 5, 9, 33), 2), "odd by 4": ((1, 3, 5, 7), 4)}
    cases: dict[str, Case] = {}
    for form in ("fp32", "fp16"):
        for name, (shape, scale) in sizes.items():
            for with_labels in (False, True):
                what = "labels" if with_labels else "uncertainty"
                run = partial(upsample_two_best, form, shape, scale, with_labels)
                cases[f"upsample {what} {form}, {name}"] = run
        shape, k = ((2, 5, 9, 33), 70) if small else ((1, 19, 256, 512), 8192)
        cases[f"refine {form}, {k} points"] = partial(refine, form, shape, k)
    return cases


def _all(small: bool) -> Mapping[str, Case]:
    kinds = (_sampling, _selection, _pooling, _suppression, _upsampling)
    return MappingProxyType({name: case for kind in kinds for name, case in kind(small).items()})


CASES = _all(small=False)
"""By name, at the recipes' sizes."""

SMALL_CASES = _all(small=True)
"""The same kinds within the reach of a sanitizer, or of the emulator."""
