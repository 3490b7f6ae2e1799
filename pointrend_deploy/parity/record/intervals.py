"""How far a score depends on which pictures were taken."""

from __future__ import annotations

from pointrend_deploy.parity.record.rows import Row


class ScoreInterval(Row, frozen=True):
    """A score, its change beside another side, and the 95 % interval of both.

    The other side is PyTorch for the FP32 graph and the FP32 column for a lower precision, on the
    same pictures. See :mod:`pointrend_deploy.parity.scores.intervals` for how it is made.

    Attributes:
        score: its name, such as ``mIoU`` or ``mask AP``.
        value, low, high: the score and its interval, in 0..1.
        change, change_low, change_high: this side's score minus the other side's and its interval,
            in -1..1; a loss is negative.
        pictures: number of pictures that were drawn from, and in each draw.
        draws: number of draws.
    """

    score: str
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    pictures: int
    draws: int

    @property
    def holds_zero(self) -> bool:
        """Whether the interval of the change contains 0: neither loss nor gain can be told."""
        return self.change_low <= 0.0 <= self.change_high
