"""Run pictures through a bundle's FP32 graphs and count their values, one call at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.batches import CanvasBatch, canvas_batches
from pointrend_deploy.pictures.lists import ListedPicture, is_blank, pixels_sha256
from pointrend_deploy.progress import Progress
from pointrend_deploy.quantize.observe import Observer, real_rows
from pointrend_deploy.quantize.partial import Job, Partial, ranges_of, save
from pointrend_deploy.quantize.placement import observable
from pointrend_deploy.quantize.ranges import CalibrationPicture, SkippedPicture, Tally
from pointrend_deploy.run.instance.instances import with_masks
from pointrend_deploy.version import __version__

Array = npt.NDArray[Any]


def job_of(bundle: Bundle, pictures: Sequence[ListedPicture]) -> Job:
    """Describe the calibration of a bundle on some pictures, to recognise it when it is resumed."""
    names = bundle.graphs_of("fp32")
    return Job(
        versions={
            "pointrend-deploy": __version__,
            **{name: version(name) for name in ("numpy", "onnxruntime", "pillow")},
        },
        graphs={name: bundle.manifest.files[name] for name in names},
        listed=tuple((picture.name, picture.sha256) for picture in pictures),
    )


class Graphs:
    """A bundle's FP32 graphs and the values to observe in each.

    Attributes:
        bundle: the bundle.
        load: loads a graph by file name, once.
        values: returns the names of the values to observe in a graph, in graph order.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.load = cache(self._load)
        self.values = cache(self._values)

    def _load(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.bundle.file(name))

    def _values(self, name: str) -> tuple[str, ...]:
        return observable(self.load(name))

    def complete(self, name: str, seen: Collection[str]) -> bool:
        """Return whether every value of a graph was observed, or none because it never ran."""
        return not seen or not self.unseen(name, seen)

    def unseen(self, name: str, seen: Collection[str]) -> int:
        """Count the values of a graph that were not observed."""
        return len(set(self.values(name)) - set(seen))


def observe(
    graphs: Graphs,
    pictures: Sequence[ListedPicture],
    state: Partial,
    state_file: Path,
    progress: Progress,
) -> Partial:
    """Observe the pictures that a state has not observed yet.

    Args:
        graphs: graphs of the bundle.
        pictures: all pictures of the calibration, in order.
        state: the state to start from; changed in place.
        state_file: file to save the state to after every call of the graph.
        progress: receives each picture.

    Returns:
        The state after the last picture.

    Raises:
        DeployError: no picture can be read, a value is not finite, or a file cannot be written.
    """
    with progress.step("loading the graph"):
        watch = _Watch(graphs, state)
    with progress.step("observing pictures", len(pictures)) as tick:
        for _ in range(state.done):
            tick()
        ticked = state.done
        rest = pictures[state.done :]
        for batch in canvas_batches(graphs.bundle, rest, watch.look, watch.skip):
            watch.add(batch)
            state.tensors = ranges_of(watch.tallies)
            save(state_file, state)
            for _ in range(state.done - ticked):
                tick()
            ticked = state.done
    if not state.pictures:
        first = state.skipped[0]
        raise DeployError(
            f"none of {len(state.skipped)} pictures can be read; {first.name}: {first.reason}"
        )
    return state


class _Watch:
    """Runs the graphs and counts their values.

    Attributes:
        tallies: by graph file and value, in graph order, what was observed.
    """

    def __init__(self, graphs: Graphs, state: Partial) -> None:
        self._bundle = bundle = graphs.bundle
        self._state = state
        self._blank: set[str] = set()
        first, *masks = bundle.graphs_of("fp32")
        keep = bundle.manifest.output_names if masks else ()
        self._first, self._masks = first, masks[0] if masks else ""
        self._observers = {
            first: Observer(graphs.load(first), graphs.values(first), keep),
            **{name: Observer(graphs.load(name), graphs.values(name)) for name in masks},
        }
        self._order = {name: graphs.values(name) for name in self._observers}
        graphs.load.cache_clear()  # sessions have their own copy of the weights
        self.tallies = {name: dict[str, Tally]() for name in self._observers} | state.tallies()

    def look(self, picture: ListedPicture, rgb: npt.NDArray[np.uint8]) -> bool:
        """Note a picture's pixels; return False if an earlier picture has the same pixels."""
        pixels, shown = pixels_sha256(rgb), self._state.shown
        if earlier := shown.get(pixels, ""):
            reason = f"has the same pixels as {earlier} and is counted once"
            self._leave_out(picture, reason, duplicate=True)
            return False
        shown[pixels] = picture.name
        if is_blank(rgb):
            self._blank.add(picture.name)
        return True

    def skip(self, picture: ListedPicture, reason: str) -> None:
        """Note a picture that cannot be read."""
        self._leave_out(picture, reason, duplicate=False)

    def _leave_out(self, picture: ListedPicture, reason: str, duplicate: bool) -> None:
        self._state.skipped.append(SkippedPicture(picture.name, reason, picture.sha256, duplicate))

    def add(self, batch: CanvasBatch) -> None:
        """Run the graphs on a batch and count the values of its pictures."""
        real, count = len(batch.pictures), self._bundle.manifest.canvas.batch
        kept: dict[str, Array] = {}
        for name, values in self._observers[self._first].run(batch.inputs, kept):
            self._tally(self._first, name, real_rows(values, real, count), batch)
        if self._masks:
            found = {name: values[:real] for name, values in kept.items()}

            def masks(inputs: dict[str, Array]) -> Array:
                for name, values in self._observers[self._masks].run(inputs):
                    self._tally(self._masks, name, values, batch)
                return np.zeros((), np.float32)  # the masks are not used

            with_masks(self._bundle.manifest, found, masks)
        for file, order in self._order.items():  # in graph order, whatever was counted first
            self.tallies[file] = {
                n: self.tallies[file][n] for n in order if n in self.tallies[file]
            }
        self._state.pictures += [
            CalibrationPicture(picture.name, picture.sha256, picture.name in self._blank)
            for picture in batch.pictures
        ]

    def _tally(self, file: str, name: str, values: Array, batch: CanvasBatch) -> None:
        try:
            self.tallies[file].setdefault(name, Tally()).add(values)
        except DeployError as error:
            names = ", ".join(picture.name for picture in batch.pictures)
            raise DeployError(
                f"{name} of {file}: {error.message}, on {names}",
                "the weights may be damaged, or this picture overflows float32: leave it out",
            ) from error
