"""Measure points lost on the user's pictures, for `quantize --sensitivity`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pointrend_deploy.bundle.folder import RANGES, Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.batches import fitted_batches
from pointrend_deploy.pictures.canvas import batch_of
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.pictures.lists import listed
from pointrend_deploy.quantize.ranges import decode
from pointrend_deploy.quantize.sensitivity import Measure
from pointrend_deploy.quantize.tensorrt_cache import is_cache
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.verbs.quantize.options import QuantizeOptions
from pointrend_deploy.verbs.quantize.task import Answer, task_of

if TYPE_CHECKING:
    from onnx import ModelProto

MOST: Final = 16
"""Most pictures to measure on: each is run once per block, and a few times more."""
_NAMED: Final = 3
"""Most pictures that a note names."""


@dataclass(frozen=True)
class Pictures:
    """Pictures to measure on.

    Attributes:
        paths: at most :data:`MOST` pictures, evenly spaced in the list.
        listed: number of pictures in the list.
        others: those of ``paths`` that the ranges were not calibrated on; empty if the ranges do
            not name their pictures.
    """

    paths: tuple[Path, ...]
    listed: int
    others: tuple[Path, ...] = ()

    def lines(self, skipped: Sequence[Path], measure: Measure) -> list[str]:
        """Say what was measured on which pictures, for the terminal.

        Args:
            skipped: those of ``paths`` that cannot be read.
            measure: definition of the points lost.
        """
        count = len(self.paths) - len(skipped)
        of = f" of {self.listed}" if self.listed > count else ""
        pictures = f"{count}{of} picture{'s' if self.listed > 1 else ''}"
        lines = [f"sensitivity on {pictures}: {measure.points}", f"{'':12}{measure.caveat}"]
        if skipped:
            more = ", ..." if len(skipped) > _NAMED else ""
            names = ", ".join(path.name for path in skipped[:_NAMED])
            lines.append(
                f"note        {len(skipped)} cannot be read and are left out: {names}{more}"
            )
        if others := set(self.others).difference(skipped):
            lines.append(
                f"note        {len(others)} of {count} pictures were not in the calibration"
            )
        return lines


def pictures_for(bundle: Bundle, options: QuantizeOptions, images: Path) -> Pictures:
    """Choose the pictures of a folder or list to measure on.

    Raises:
        DeployError: there are none, or the list cannot be used.
    """
    found = listed(images)
    count = min(MOST, len(found))
    taken = [found[place * len(found) // count] for place in range(count)]
    known = _calibrated_on(options.ranges or bundle.path / RANGES)
    return Pictures(
        tuple(each.path for each in taken),
        len(found),
        tuple(each.path for each in taken if known is not None and each.sha256 not in known),
    )


def _calibrated_on(path: Path) -> frozenset[str] | None:
    """Return the SHA-256 of the pictures behind ranges; None for a TensorRT cache."""
    raw = path.read_bytes()
    if is_cache(raw):
        return None
    ranges = decode(raw, str(path))
    twice = (skipped.sha256 for skipped in ranges.skipped if skipped.duplicate)
    return frozenset([*(picture.sha256 for picture in ranges.pictures), *twice])


class Scale:
    """FP32's answers on pictures, and the points that other graphs lose against them.

    Of each picture only the answer is kept.

    Args:
        bundle: the bundle the graphs are for.
        paths: the pictures.
        fp32: the FP32 graphs by file name.
        done: called after each picture.

    Attributes:
        paths: pictures that can be read.
        skipped: pictures that cannot be read.
        measure: definition of the points lost.

    Raises:
        DeployError: no picture can be read, or FP32 finds nothing in any of them.
    """

    def __init__(
        self,
        bundle: Bundle,
        paths: Sequence[Path],
        fp32: Mapping[str, ModelProto],
        done: Callable[[], None],
    ) -> None:
        self._bundle = bundle
        self._task = task_of(bundle.manifest)
        self.paths, self.skipped = _readable(paths)
        with closing(InMemoryRunner(bundle, fp32)) as runner:
            self._fp32 = list(self._answers(runner, done))
        self.measure = self._task.measure(self._fp32)

    def points(self, graphs: Mapping[str, ModelProto], done: Callable[[], None]) -> float:
        """Measure the points, 0..100, that INT8 graphs lose.

        Args:
            graphs: the graphs, by the file name of the FP32 graph each was made from.
            done: called after each picture.

        Raises:
            DeployError: ONNX Runtime does not run them, or an output is not finite.
        """
        with closing(InMemoryRunner(self._bundle, graphs, precision="int8")) as runner:
            return self._task.points_lost(self._fp32, self._answers(runner, done))

    def _answers(self, runner: InMemoryRunner, done: Callable[[], None]) -> Iterator[Answer]:
        """Yield the answer for each picture on the canvas, one by one."""
        manifest = self._bundle.manifest
        for fitted in fitted_batches(self.paths, manifest):
            outputs = runner.infer(batch_of(fitted, manifest))
            for row, picture in enumerate(fitted):
                yield self._task.answer({name: out[row] for name, out in outputs.items()}, picture)
                done()


def _readable(paths: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Split pictures into those that can be read and those that cannot.

    Raises:
        DeployError: none can be read.
    """
    good, bad = [], []
    problem: DeployError | None = None
    for path in paths:
        try:
            read_picture(path)
            good.append(path)
        except DeployError as error:
            bad.append(path)
            problem = error
    if problem is not None and not good:
        raise problem
    return tuple(good), tuple(bad)
