"""The pictures that sensitivity is measured on, and FP32's answers on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import RANGES, Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.parity.instance.matching import detection_points
from pointrend_deploy.parity.scores.labels import classes_shown, label_points
from pointrend_deploy.pictures.batches import fitted_batches
from pointrend_deploy.pictures.canvas import Fitted, batch_of
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.pictures.lists import listed
from pointrend_deploy.quantize.ranges import decode
from pointrend_deploy.quantize.tensorrt_cache import is_cache
from pointrend_deploy.run.backends.onnxrt import InMemoryRunner
from pointrend_deploy.run.instance.instances import Instances, instances_at_picture_size
from pointrend_deploy.verbs.quantize.options import QuantizeOptions

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

MOST: Final = 16
"""Pictures measured on: each of them is run once for every block, and a few times more."""
_NAMED: Final = 3


@dataclass(frozen=True)
class Pictures:
    """Pictures to measure on.

    Attributes:
        paths: of at most :data:`MOST`, evenly spaced in the list.
        listed: how many there are in the list.
        others: those of ``paths`` that the ranges were not observed on; none where the ranges do
            not say on which they were.
    """

    paths: tuple[Path, ...]
    listed: int
    others: tuple[Path, ...] = ()

    def lines(self, skipped: Sequence[Path], measure: tuple[str, str]) -> list[str]:
        """What was measured on what, for the terminal."""
        count = len(self.paths) - len(skipped)
        of = f" of {self.listed}" if self.listed > count else ""
        pictures = f"{count}{of} picture{'s' if self.listed > 1 else ''}"
        lines = [f"sensitivity on {pictures}: {measure[0]}", f"{'':12}{measure[1]}"]
        if skipped:
            more = ", ..." if len(skipped) > _NAMED else ""
            names = ", ".join(path.name for path in skipped[:_NAMED])
            lines.append(
                f"note        {len(skipped)} cannot be read and are left out: {names}{more}"
            )
        if others := set(self.others).difference(skipped):
            lines.append(
                f"note        {len(others)} of {count} pictures are others than those calibrated on"
            )
        return lines


def pictures_for(bundle: Bundle, options: QuantizeOptions, images: Path) -> Pictures:
    """The pictures of a folder or list that are measured on.

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
    """SHA-256 of the pictures behind ranges; None of a TensorRT cache, which does not name them."""
    raw = path.read_bytes()
    if is_cache(raw):
        return None
    ranges = decode(raw, str(path))
    twice = (skipped.sha256 for skipped in ranges.skipped if skipped.duplicate)
    return frozenset([*(picture.sha256 for picture in ranges.pictures), *twice])


class Scale:
    """FP32's answers on pictures, which those of another graph are held against.

    Args:
        bundle: opened.
        paths: of pictures.
        fp32: the FP32 graphs by file.
        done: called after each picture.

    Attributes:
        paths: of the pictures that can be read.
        skipped: of the others.
        classes: shown by FP32, and of the model; None of an instance bundle.
        measure: what a point is, and what it is not.

    Raises:
        DeployError: none can be read, or FP32 finds nothing in any of them.
    """

    def __init__(
        self,
        bundle: Bundle,
        paths: Sequence[Path],
        fp32: Mapping[str, ModelProto],
        done: Callable[[], None],
    ) -> None:
        self._bundle = bundle
        self._instance = bundle.manifest.recipe.task == "instance"
        self.paths, self.skipped = _readable(paths)
        with closing(InMemoryRunner(bundle, fp32)) as runner:
            self._theirs = list(self._answers(runner, done))
        self.classes: tuple[int, int] | None = None
        if self._instance:
            if not any(len(each) for each in self._theirs):
                raise DeployError(
                    f"FP32 finds nothing in any of {len(self.paths)} pictures, so nothing can be "
                    "lost",
                    "give pictures of what the model was trained on (--images); a model without "
                    "trained weights has no sensitivity",
                )
            things = sum(len(each) for each in self._theirs)
            self.measure = (
                f"points lost = 100 (1 - mean mask IoU with FP32's {things:,} detections)",
                "what is lost or made up counts as 0; this is no AP, which needs a truth: compare",
            )
        else:
            names = bundle.manifest.recipe.classes.names
            self.classes = classes_shown(self._theirs), len(names)
            self.measure = (
                "points lost = 100 (1 - mIoU with FP32's labels)",
                "the mIoU against any truth falls by no more than that here, usually by much less",
            )

    def points(self, graphs: Mapping[str, ModelProto], done: Callable[[], None]) -> float:
        """Points that other graphs lose.

        Args:
            graphs: by the file of the FP32 graph each was made from.
            done: called after each picture.

        Raises:
            DeployError: ONNX Runtime does not run them, or an output is not finite.
        """
        with closing(InMemoryRunner(self._bundle, graphs, precision="int8")) as runner:
            ours = self._answers(runner, done)
            if self._instance:
                lost = detection_points(self._theirs, ours)
            else:
                names = self._bundle.manifest.recipe.classes.names
                lost = label_points(self._theirs, ours, len(names))
        assert lost is not None  # there is something to lose, as was checked at first
        return lost

    def _answers(self, runner: InMemoryRunner, done: Callable[[], None]) -> Iterator[Any]:
        """Labels (H, W) uint8, or instances, of each picture on the canvas, one by one."""
        manifest = self._bundle.manifest
        answer = _instances if self._instance else _labels
        for fitted in fitted_batches(self.paths, manifest):
            outputs = runner.infer(batch_of(fitted, manifest))
            for row, picture in enumerate(fitted):
                yield answer(
                    manifest, {name: array[row] for name, array in outputs.items()}, picture
                )
                done()


def _readable(paths: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
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


def _labels(manifest: Manifest, outputs: Mapping[str, Array], picture: Fitted) -> Array:
    height, width = picture.fitted_hw
    if "labels" in outputs:
        return np.ascontiguousarray(outputs["labels"][:height, :width])
    best: Array = outputs["logits"][:, :height, :width].argmax(axis=0).astype(np.uint8)
    return best


def _instances(manifest: Manifest, outputs: Mapping[str, Array], picture: Fitted) -> Instances:
    recipe, export = manifest.instances
    hw = picture.fitted_hw
    return instances_at_picture_size(outputs, export.masks, hw, hw, recipe.num_classes)
