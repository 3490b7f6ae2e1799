"""How answers and scores differ from another side's, in sentences: worst cases and intervals."""

from __future__ import annotations

from collections.abc import Sequence

from pointrend_deploy.parity.record.intervals import ScoreInterval
from pointrend_deploy.parity.record.precisions import MatchFigures, PrecisionColumn
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.intervals import LEAST_PICTURES
from pointrend_deploy.report.figures import counted, overlap, percent, points, small


def worst_cases(column: PrecisionColumn) -> str:
    """Say in one sentence where a precision's answers differ most, with the pictures.

    The other side is the FP32 column; of fp32 itself it is PyTorch.

    Args:
        column: with its figures.

    Returns:
        The sentence without a full stop; empty where nothing was compared one by one.
    """
    fp32 = column.precision == "fp32"
    whose = "PyTorch" if fp32 else "fp32"
    found = column.found_reference if fp32 else column.found_fp32
    if found is not None:
        return _worst_detections(found, whose)
    share = column.agrees_reference if fp32 else column.agrees_fp32
    if share is None:
        return ""
    said = f"{percent(share, 3)} of the labels equal {whose}'s"
    if column.agrees_least is None or share == 1.0:
        return said
    return f"{said}, least {percent(column.agrees_least, 3)}{_in(column.agrees_least_at)}"


def _worst_detections(found: MatchFigures, whose: str) -> str:
    parts = [f"{found.matched:,} of {counted(found.theirs, 'detection')} of {whose} matched"]
    if found.only_here:
        parts[0] += f" and {found.only_here:,} more found"
    if found.box_px is not None:
        parts.append(f"largest difference of a box {small(found.box_px)} px{_in(found.box_px_at)}")
    if found.mask_iou_min is not None:
        least = overlap(found.mask_iou_min, 3)
        parts.append(f"least IoU of a mask {least}{_in(found.mask_iou_min_at)}")
    return "; ".join(parts)


def _in(picture: str | None) -> str:
    return "" if picture is None else f" in {picture}"


def told(row: ScoreInterval) -> str:
    """Say what the interval of a change lets one say.

    A change whose interval contains 0 is never called none: it was not seen.
    """
    seen = "no loss" if row.holds_zero else "loss" if row.change_high < 0 else "gain"
    return f"{seen} seen on {counted(row.pictures, 'picture')}"


def change_with_interval(row: ScoreInterval) -> str:
    """Return a change in points with its 95 % interval: ``+0.09 (+0.01 to +0.35)``."""
    return f"{points(row.change)} ({interval(row)})"


def interval(row: ScoreInterval) -> str:
    """Return the 95 % interval of a change in points: ``+0.01 to +0.35``."""
    return f"{points(row.change_low)} to {points(row.change_high)}"


def changes(rows: Sequence[ScoreInterval], whose: str) -> str:
    """Say in one sentence how scores changed, each with its interval.

    Args:
        rows: of one side.
        whose: the side they are compared with.

    Returns:
        The sentence without a full stop; empty without rows.
    """
    by_word: dict[str, list[str]] = {}
    for row in rows:
        by_word.setdefault(told(row), []).append(f"{row.score} {change_with_interval(row)}")
    each = "; ".join(f"{word}: {', '.join(scores)}" for word, scores in by_word.items())
    return f"points beside {whose} with 95 % intervals: {each}" if rows else ""


def beyond_limits(column: PrecisionColumn) -> str:
    """Name the scores that keep their limit while their interval reaches a loss beyond it.

    Returns:
        Half a sentence; empty where there is no such score.
    """
    names = [
        row.score
        for row in column.intervals
        for gate in column.gates
        if gate.name == f"drop of {row.score}" and gate and -row.change_low > gate.limit
    ]
    if not names:
        return ""
    many = len(names) > 1
    return (
        f"the interval{'s' if many else ''} of {' and '.join(names)} reach{'' if many else 'es'} a "
        "loss beyond the limit, so more pictures are needed to be sure"
    )


def score_lines(run: Run) -> list[str]:
    """Return a line for each score of a run with its interval, or why there are none.

    Args:
        run: a comparison.

    Returns:
        No line where nothing was scored against a truth.
    """
    scored = run.accuracy or any(row.against == "truth" for row in run.metrics)
    if not scored:
        return []
    if not run.intervals:
        return [no_intervals(run.pictures)]
    first = run.intervals[0]
    return [
        f"95 % intervals over {counted(first.pictures, 'picture')}, from {first.draws:,} draws of "
        "as many with replacement:",
        *(
            f"{row.score} {100 * row.value:.2f} ({100 * row.low:.2f} to {100 * row.high:.2f}); "
            f"beside PyTorch {change_with_interval(row)}, {told(row)}"
            for row in run.intervals
        ),
    ]


def no_intervals(pictures: int) -> str:
    """Say why scores have no intervals.

    Args:
        pictures: number of pictures that were scored.
    """
    if pictures < LEAST_PICTURES:
        return (
            f"no intervals: {counted(pictures, 'picture')} cannot show how far the scores would "
            f"differ on others, {LEAST_PICTURES} are needed; read small differences as unknown"
        )
    return "no intervals: this record was written without them; compare again to have them"
