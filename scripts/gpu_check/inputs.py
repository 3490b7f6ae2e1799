"""Inputs of the checks and timings: points, uncertainties, boxes and scores, ordinary and not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

INF, NAN = math.inf, math.nan


def generator(seed: int) -> torch.Generator:
    """Seeded, on the CPU: the same numbers on every machine."""
    return torch.Generator().manual_seed(seed)


def features(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers in [-1, 1)."""
    return torch.rand(shape, generator=generator(seed)) * 2.0 - 1.0


def whole_numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    """Whole numbers of -9 to 9: ties among them, and exact sums where weights are powers of two."""
    return torch.randint(-9, 10, shape, generator=generator(seed)).float()


def different_cells(n: int, cells: int, k: int, seed: int) -> Tensor:
    """Flat indices (N, K) int64, none of them twice in a row."""
    random = generator(seed)
    return torch.stack([torch.randperm(cells, generator=random)[:k] for _ in range(n)])


def mixed_points(n: int, count: int, height: int, width: int, seed: int) -> Tensor:
    """Points (N, P, 2): most inside, some beside the map, at centres, edges, nowhere."""
    random = generator(seed)
    size = torch.tensor([width, height])
    inside = torch.rand((n, count, 2), generator=random)
    far = torch.tensor([1e30, -1e30, 1e5, -3.0, 4.0, NAN, INF, -INF])
    kinds = torch.stack(
        (
            *(inside, inside, inside, inside * 1.6 - 0.3, inside * 1.01 - 0.005),
            (torch.floor(inside * size) + 0.5) / size,
            torch.round(inside),
            far[torch.randint(0, len(far), inside.shape, generator=random)],
        )
    )
    which = torch.randint(0, len(kinds), (1, n, count, 1), generator=random)
    return kinds.gather(0, which.expand(1, n, count, 2))[0].contiguous()


def contours(n: int, height: int, width: int, seed: int) -> Tensor:
    """Uncertainty (N, H * W) of a smooth picture: high along lines, as a network's is."""
    blobs = torch.randn((n, 1, 12, 24), generator=generator(seed))
    smooth = F.interpolate(blobs, (height, width), mode="bicubic", align_corners=False)
    noise = torch.randn((n, 1, height, width), generator=generator(seed + 1))
    return -(smooth + 1e-3 * noise).abs().flatten(1)


def uncertainty(kind: str, n: int, length: int, seed: int) -> Tensor:
    """Rows (N, L): random, ties, equal values, special values, nothing but NaN."""
    random = generator(seed)
    normal = torch.randn((n, length), generator=random)
    special = torch.tensor([NAN, -NAN, INF, -INF, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, 1.0])
    return {
        "random": normal,
        "ties": torch.randint(-2, 2, (n, length), generator=random).float(),
        "all equal": torch.full((n, length), -0.25),
        "special": special[torch.randint(0, 10, (n, length), generator=random)],
        "all NaN": torch.full((n, length), NAN),
        "rare infinities": torch.where(normal > 3.5, INF, torch.where(normal < -3, NAN, normal)),
    }[kind]


def boxes_inside(n: int, count: int, height: int, width: int, seed: int) -> Tensor:
    """Boxes (N, R, 4) of 8 pixels to the whole picture, inside it."""
    random = generator(seed)
    picture = torch.tensor([width, height], dtype=torch.float32)
    share = torch.rand((n, count, 2), generator=random)
    size = torch.minimum(8.0 * (picture.min() / 8.0) ** share, picture)
    corner = torch.rand((n, count, 2), generator=random) * (picture - size)
    return torch.cat((corner, corner + size), dim=2)


def odd_boxes(height: int, width: int) -> Tensor:
    """Boxes (1, R, 4): no area, outside, across an edge, at a level's limit, not finite."""
    h, w = float(height), float(width)
    text = f"""
        10 10 10 40, 10 10 40 10, 0 0 0 0, 5 5 5 5,
        -50 -40 30 20, {w - 20} {h - 30} {w + 61} {h + 47},
        -300 -300 -200 -200, {2 * w} 0 {2 * w + 64} 64,
        0 0 {w} {h}, {-w} {-h} {2 * w} {2 * h},
        0 0 56 56, 0 0 112 112, 0 0 224 224, 0 0 448 448, 0 0 1 1, 0 0 0.25 0.25,
        nan 0 10 10, 0 0 inf 10, -inf 0 10 10, 0 nan nan 10
    """
    return torch.tensor([[[float(v) for v in row.split()] for row in text.split(",")]])


def crowd(n: int, groups: int, length: int, seed: int) -> Tensor:
    """Boxes that overlap a good deal: (N, G, L, 4)."""
    random = generator(seed)
    shape = (n, groups, length, 2)
    corner = torch.rand(shape, generator=random) * math.sqrt(length) * 6
    size = torch.rand(shape, generator=random) * 60 + 1
    return torch.cat((corner, corner + size), dim=3)


def scores(kind: str, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Scores (N, G, L): random, mostly low as a classifier's, ties, special values."""
    random = generator(seed)
    uniform = torch.rand(shape, generator=random)
    special = torch.tensor([NAN, -NAN, INF, -INF, 0.0, -0.0, 3.3e38, -3.3e38, 1e-45, 1.0])
    return {
        "random": uniform,
        "low": uniform**8,
        "ties": torch.randint(0, 4, shape, generator=random).float(),
        "special": special[torch.randint(0, 10, shape, generator=random)],
    }[kind]
