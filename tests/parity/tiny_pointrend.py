"""A whole PointRend in a page of numpy, with a switch for each mistake deployments really make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.parity.subdivision import replay
from pointrend_deploy.recipe.parts import ClassesSpec, FPNSpec, InputSpec, PointHeadSpec, ResNetSpec
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe

Array = npt.NDArray[Any]

MISTAKES = (
    "channels swapped",
    "half a pixel off",
    "nearest sampling",
    "border padding",
    "align_corners sampling",
    "align_corners upsampling",
    "k clamped",
    "least certain points",
    "coarse sampled from refined logits",
    "points written transposed",
)


def recipe(classes: int = 6, points: int = 192, steps: int = 2) -> Recipe:
    return Recipe(
        name="tiny",
        input=InputSpec(channel_order="RGB", pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)),
        classes=ClassesSpec(names=tuple(f"class {i}" for i in range(classes))),
        backbone=ResNetSpec(depth=50),
        fpn=FPNSpec(),
        coarse_head=CoarseHeadSpec(),
        point_head=PointHeadSpec(subdivision_steps=steps, subdivision_points=points),
    )


def smooth(rng: np.random.Generator, channels: int, height: int, width: int) -> Array:
    """Fields that vary over a few cells, as features do."""
    field = rng.standard_normal((1, channels, height // 4, width // 4)).astype(np.float32)
    return replay.double(replay.double(field))


def sample(maps: Array, points: Array, mistake: str = "") -> Array:
    """(C,H,W) at (P,2) points (x, y) in [0,1], zeros outside -> (C,P)."""
    _, height, width = maps.shape
    if mistake == "align_corners sampling":
        x, y = points[:, 0] * (width - 1), points[:, 1] * (height - 1)
    else:
        x, y = points[:, 0] * width - 0.5, points[:, 1] * height - 0.5
    if mistake == "half a pixel off":
        x, y = x + 0.5, y + 0.5
    if mistake == "nearest sampling":
        x, y = np.round(x), np.round(y)
    if mistake == "border padding":
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros((maps.shape[0], len(points)), np.float64)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            value = maps[:, row.clip(0, height - 1), column.clip(0, width - 1)]
            out += np.where(inside, weight, 0.0) * value
    return out.astype(np.float32)


def align_corners_double(grid: Array) -> Array:
    out = grid
    for axis in (2, 3):
        size = out.shape[axis]
        at = np.linspace(0, size - 1, 2 * size)
        low = np.floor(at).astype(int).clip(0, size - 2)
        weight = np.expand_dims(at - low, tuple(i for i in range(4) if i != axis))
        out = out.take(low, axis) * (1 - weight) + out.take(low + 1, axis) * weight
    return out.astype(np.float32)


def run(
    mistake: str = "",
    scale: float = 1.0,
    seed: int = 0,
    points: int = 192,
    steps: int = 2,
    noise: float = 0.0,
    head_scale: float = 1.0,
) -> dict[str, Array]:
    """All stages of one picture on a 64 x 96 canvas; ``scale`` multiplies every activation.

    ``noise`` adds a relative rounding error to features and coarse logits, as another summation
    order does; ``head_scale`` makes the point head's logits larger than the coarse ones.
    """
    rng = np.random.default_rng(seed)
    p2 = scale * smooth(rng, 8, 16, 24)
    if mistake == "channels swapped":
        p2 = p2[:, ::-1].copy()
    height, width = 64 // 2**steps, 96 // 2**steps
    coarse = scale * smooth(rng, 6, height, width)
    weights = head_scale * rng.standard_normal((6, 14)).astype(np.float32) / 3
    if noise:
        jitter = np.random.default_rng(seed + 1)
        p2 = p2 * (1 + noise * jitter.standard_normal(p2.shape)).astype(np.float32)
        coarse = coarse * (1 + noise * jitter.standard_normal(coarse.shape)).astype(np.float32)
    stages: dict[str, Array] = {"p2": p2, "coarse": coarse}
    logits = coarse
    for step in range(steps):
        source = logits if mistake == "coarse sampled from refined logits" else coarse
        upsampling = mistake == "align_corners upsampling"
        logits = align_corners_double(logits) if upsampling else replay.double(logits)
        _, c, h, w = logits.shape
        unsure = replay.uncertainty(logits).reshape(-1)
        if mistake == "least certain points":
            unsure = -unsure
        k = min(h * w, points // 2 if mistake == "k clamped" else points)
        chosen = np.sort(np.argsort(-unsure, kind="stable")[:k])
        xy = np.stack(((chosen % w + 0.5) / w, (chosen // w + 0.5) / h), axis=1)
        inputs = (sample(p2[0], xy, mistake), sample(source[0], xy, mistake))
        found = (weights @ np.concatenate(inputs)).astype(np.float32)
        logits = logits.reshape(1, c, h * w).copy()
        at = (chosen % w) * h + chosen // w if mistake == "points written transposed" else chosen
        logits[0, :, at] = found.T
        logits = logits.reshape(1, c, h, w)
        stages[f"step{step}.indices"] = chosen[None].astype(np.int64)
        stages[f"step{step}.point_logits"] = found[None]
    stages["logits"] = logits
    stages["labels"] = logits.argmax(axis=1).astype(np.uint8)
    return stages
