"""The stages of every precision of an instance bundle, all on the same proposals and boxes.

If every precision used its own boxes, no stage after the boxes could be compared: rounding keeps
another of two overlapping boxes, and then everything computed from that box differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.parity.record.precisions import PrecisionName

if TYPE_CHECKING:
    from pointrend_deploy.parity.onnx_stages import TappedGraph


Array = npt.NDArray[Any]
FOUND = ("proposals", "proposal_count", "num_detections", "boxes", "classes")
"""Tensors that the FP32 graph gives, besides its stages."""
GIVEN = {"proposals": "float32", "num_detections": "int64", "boxes": "float32", "classes": "int64"}
"""Those that replace every precision's own; only the proposals in a split layout's detector."""


class SameBoxes:
    """Gives the stages of every precision's graphs on the proposals and boxes of the FP32 graph.

    Args:
        bundle: the bundle.
        names: precisions, with fp32.
    """

    def __init__(self, bundle: Bundle, names: Sequence[PrecisionName]) -> None:
        from pointrend_deploy.parity.onnx_stages import TappedGraph, read_graph, taps

        _, export = bundle.manifest.instances
        self._most, self._split = export.detections, export.layout == "split"
        files = {name: [bundle.file(file) for file in bundle.graphs_of(name)] for name in names}
        self._levels = tuple(
            spec.name for spec in export.mask_inputs if spec.name not in ("boxes", "classes")
        )
        graphs = [taps(read_graph(path)) for path in files["fp32"]]
        self._order = [tap.stage for each in graphs for tap in each]
        self._find = TappedGraph(files["fp32"][0], (), also=FOUND)
        given = {"proposals": "float32"} if self._split else GIVEN
        self._detectors = {
            name: TappedGraph(paths[0], graphs[0], given, self._levels)
            for name, paths in files.items()
        }
        self._masks: dict[PrecisionName, TappedGraph] = {
            name: TappedGraph(paths[1], graphs[1]) for name, paths in files.items() if self._split
        }

    def __call__(
        self, inputs: Mapping[str, Array], used: int
    ) -> dict[PrecisionName, dict[str, Array]]:
        """See :class:`pointrend_deploy.parity.instance.columns.InstanceStages`."""
        _, found = self._find(inputs)
        at = dict(zip(FOUND, found, strict=True))
        fed = {**inputs, **{f"given.{name}": array for name, array in at.items()}}
        return {name: self._stages(name, fed, at, used) for name in self._detectors}

    def _stages(
        self, name: PrecisionName, fed: Mapping[str, Array], at: Mapping[str, Array], used: int
    ) -> dict[str, Array]:
        values, levels = self._detectors[name](fed)
        proposals = np.where(np.arange(len(at["boxes"])) < used, at["proposal_count"], 0)
        counts = np.where(np.arange(len(at["boxes"])) < used, at["num_detections"], 0)
        found: dict[str, Array] = {}
        for stage, arrays in values.items():
            if stage.startswith("roi_heads.box_predictor"):
                found[stage] = used_rows(arrays[0], proposals, at["proposals"].shape[1])
            elif stage.startswith("step") or stage in ("coarse", "mask_logits"):
                every = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)  # pictures
                found[stage] = _shaped(stage, used_rows(every, counts, self._most))
            else:
                found[stage] = np.concatenate([array[:used].reshape(-1) for array in arrays])
        if self._split:
            found |= self._mask_stages(
                name, at, counts, dict(zip(self._levels, levels, strict=True))
            )
        return {stage: found[stage] for stage in self._order if stage in found}

    def _mask_stages(
        self,
        name: PrecisionName,
        at: Mapping[str, Array],
        counts: Array,
        levels: Mapping[str, Array],
    ) -> dict[str, Array]:
        parts: dict[str, list[Array]] = {}
        for row, count in enumerate(counts):
            if count:
                maps = {key: value[row : row + 1] for key, value in levels.items()}
                rois = {key: at[key][row, :count] for key in ("boxes", "classes")}
                values, _ = self._masks[name]({**maps, **rois})
                for stage, arrays in values.items():
                    parts.setdefault(stage, []).append(_shaped(stage, arrays[0]))
        return {stage: np.concatenate(each) for stage, each in parts.items()}


def used_rows(values: Array, counts: Array, rows: int) -> Array:
    """Return the used rows of a batch, (sum of counts, ...), one picture after the other.

    Args:
        values: (N, rows, ...) or (N * rows, ...).
        counts: (N,) integers, number of used rows of each picture.
        rows: number of rows of a picture, used or not.
    """
    flat = values
    if values.shape[0] != len(counts) * rows:
        flat = values.reshape(-1, *values.shape[2:])
    places = [row * rows + each for row, count in enumerate(counts) for each in range(int(count))]
    return flat[np.asarray(places, np.int64)]


def _shaped(stage: str, values: Array) -> Array:
    """Return logits of points as (R, 1, K), whatever shape the graph scatters them in."""
    if not stage.endswith(".point_logits"):
        return values
    return values.reshape(len(values), 1, -1) if len(values) else values.reshape(0, 1, 0)
