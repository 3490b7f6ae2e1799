"""The two graphs of a split layout: detections of a whole batch, then masks picture by picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.manifest import Manifest
from pointrend_deploy.run.instances import OUTPUTS, detection_count

Array = npt.NDArray[Any]
MaskGraph = Callable[[dict[str, Array]], Array]
"""One call of the mask graph: its inputs by name, R at least 1; gives the masks (R, S, S)."""


def with_masks(
    manifest: Manifest, detected: dict[str, Array], mask_graph: MaskGraph
) -> dict[str, Array]:
    """The detector's outputs with the masks of what it found, as a single graph would give them.

    The mask graph sees only the rows that hold a detection, and is not called where there is none.

    Args:
        manifest: of a bundle with split layout.
        detected: the detector's outputs by name, the batch axis first.
        mask_graph: computes the masks of one picture's boxes.

    Returns:
        ``num_detections``, ``boxes``, ``scores``, ``classes``, ``masks`` (N, D, S, S), rows past
        the count zero, then the detector's further outputs.

    Raises:
        DeployError: the bundle is semantic, or ``num_detections`` is out of range.
    """
    _, export = manifest.instances
    counts = detected["num_detections"]
    dtype = export.mask_outputs[0].dtype
    side = export.mask_side
    masks = np.zeros((len(counts), export.detections, side, side), dtype)
    for row, found in enumerate(counts):
        count = detection_count(found, export.detections)
        if count:
            inputs = {
                spec.name: detected[spec.name][row, :count]
                if spec.shape[0] == -1
                else detected[spec.name][row : row + 1]
                for spec in export.mask_inputs
            }
            masks[row, :count] = mask_graph(inputs)
    everything = {**detected, "masks": masks}
    return {name: everything[name] for name in (*OUTPUTS, *detected) if name in everything}
