"""A semantic engine's labels beside those of its graph."""

from __future__ import annotations

from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity import gates
from pointrend_deploy.parity.engine_comparison import EngineComparison, Outputs, Sides, unfinite
from pointrend_deploy.parity.semantic.columns import canvas_labels


def compare_labels(manifest: Manifest, sides: Sides) -> EngineComparison:
    """Compare the labels on the canvas, inside each picture.

    Args:
        manifest: of the bundle.
        sides: the outputs of both, with ``labels`` or ``logits``.
    """
    pixels = sum(height * width for height, width in _areas(sides))
    agreement = _agreement(sides, sides.engine)
    beside_fp32 = None if sides.fp32 is None else _agreement(sides, sides.fp32)
    limit = gates.engine_limit(gates.labels_limit(pixels), beside_fp32)
    held = (
        gates.gate(
            "values that are not finite",
            "outputs",
            unfinite(sides.graph, sides.engine),
            "<=",
            0,
            gates.READABLE.reason,
        ),
        gates.gate("share of equal labels", "labels", agreement, ">=", limit, gates.ENGINE_REASON),
    )
    return EngineComparison(f"{pixels} labels", pixels, agreement, None, held)


def _areas(sides: Sides) -> list[tuple[int, int]]:
    return [picture.fitted_hw for picture in sides.pictures]


def _agreement(sides: Sides, other: Outputs) -> float:
    """Return the share, 0..1, of the graph's labels that other outputs have too."""
    expected, found = canvas_labels(sides.graph), canvas_labels(other)
    same = total = 0
    for row, (height, width) in enumerate(_areas(sides)):
        equal = (expected[row] == found[row])[:height, :width]
        same, total = same + int(equal.sum()), total + equal.size
    return same / total
