"""From an instance bundle's outputs to the instances in a picture, at the picture's own size.

The two graphs of a split layout are run here as well: the detector on a whole batch, then the mask
graph for each picture, so that both layouts give the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.forms import MaskForm
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.errors import DeployError
from pointrend_deploy.run.instance.masks import RLE, PackedPatches, Patch, encode, paste_mask

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
HW = tuple[int, int]
OUTPUTS = ("num_detections", "boxes", "scores", "classes", "masks")
"""The outputs of every instance bundle in either layout, each with the batch axis first."""
ROUNDING = 1e-6
"""How far a probability may lie outside [0, 1]: eight units in the last place of float32."""


@dataclass(frozen=True)
class Instance:
    """One instance in a picture.

    Attributes:
        class_name: of the recipe.
        class_number: index of that name in the recipe, 0..C-1.
        score: in (0, 1].
        box: x1, y1, x2, y2 in pixels of the picture.
        mask: (H, W) bool.
    """

    class_name: str
    class_number: int
    score: float
    box: tuple[float, float, float, float]
    mask: npt.NDArray[np.bool_] = field(repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Instances:
    """The R instances in one picture, by falling score; R may be 0.

    ``instances[0]`` is the :class:`Instance` of the highest score; ``for`` goes through them all.

    Attributes:
        boxes: (R, 4) float32, (x1, y1, x2, y2) in pixels of the picture, inside it, not empty.
        scores: (R,) float32.
        classes: (R,) int64 in 0..C-1.
        hw: height and width of the picture.
        patches: for each instance, row and column of its window's upper left pixel, and the
            window's pixels, (h, w) bool. A window is hardly larger than its box, so many instances
            in a large picture need little memory, where R whole masks would need much.
        names: of the recipe's C classes; empty where only numbers are compared.
    """

    boxes: Float32
    scores: Float32
    classes: npt.NDArray[np.int64]
    hw: HW
    patches: Sequence[Patch]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Instance:
        """Return one instance; a negative index counts from the end.

        Raises:
            TypeError: the index is no whole number; slices are of ``boxes`` and the other arrays.
            IndexError: there are not so many.
        """
        place = self._place(index)
        x1, y1, x2, y2 = (float(value) for value in self.boxes[place])
        return Instance(
            class_name=self.class_names[place],
            class_number=int(self.classes[place]),
            score=float(self.scores[place]),
            box=(x1, y1, x2, y2),
            mask=self.mask(place),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each instance's class, R of them."""
        return tuple(self.names[number] for number in self.classes.tolist())

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Make the mask of one instance, (H, W) bool."""
        mask = np.zeros(self.hw, np.bool_)
        self._put(mask, self._place(index))
        return mask

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """All masks, (R, H, W) bool. They need R times the picture's pixels in bytes."""
        masks = np.zeros((len(self), *self.hw), np.bool_)
        for index, mask in enumerate(masks):
            self._put(mask, index)
        return masks

    def rle(self, index: int) -> RLE:
        """Encode the mask of one instance as COCO's RLE."""
        return encode(self.patches[self._place(index)], self.hw)

    def _place(self, index: object) -> int:
        """Return a number in 0..R-1 for an index as Python has them."""
        if not isinstance(index, SupportsIndex):
            raise TypeError(
                f"an instance is chosen by its number, such as found[0], not by "
                f"{type(index).__name__}; found.boxes, found.scores and found.classes are arrays"
            )
        if not -len(self) <= index.__index__() < len(self):
            raise IndexError(f"there are {len(self)} instances, and none of number {index}")
        return range(len(self))[index]

    def _put(self, mask: npt.NDArray[np.bool_], index: int) -> None:
        top, left, covered = self.patches[index]
        height, width = covered.shape
        mask[top : top + height, left : left + width] = covered


def instances_at_picture_size(
    outputs: Mapping[str, Array], masks: MaskForm, fitted_hw: HW, picture_hw: HW, num_classes: int
) -> Instances:
    """Make the instances of one picture from its row of a batch's outputs.

    Boxes are scaled from the canvas to the picture and clipped to it; boxes that are empty then are
    left out, as in the reference's ``output_stages``. Each mask is pasted once, at the picture's
    own size.

    Args:
        outputs: ``num_detections`` () int64, ``boxes`` (D, 4) in pixels of the canvas, ``scores``
            (D,), ``classes`` (D,) int64, ``masks`` (D, S, S).
        masks: form of the masks' values.
        fitted_hw: height and width of the picture on the canvas.
        picture_hw: its own height and width.
        num_classes: C.

    Raises:
        DeployError: the outputs cannot be right: a count outside 0..D, a box or score that is not
            finite, a class or a probability out of range, a logit that is NaN.
    """
    count = detection_count(outputs["num_detections"], len(outputs["boxes"]))
    boxes, scores, classes = (outputs[name][:count] for name in ("boxes", "scores", "classes"))
    cells = outputs["masks"][:count]
    _need(bool(np.isfinite(boxes).all()), "boxes that are not finite")
    _need(bool(np.isfinite(scores).all()), "scores that are not finite")
    _need(bool(((classes >= 0) & (classes < num_classes)).all()), "classes out of range")
    down, across = picture_hw[0] / fitted_hw[0], picture_hw[1] / fitted_hw[1]
    boxes = boxes.astype(np.float32) * np.array([across, down, across, down], np.float32)
    height, width = picture_hw
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes = boxes[solid]
    return Instances(
        boxes=boxes,
        # A runtime's sigmoid may be 2**-23 above 1, see :func:`probabilities`.
        scores=scores[solid].astype(np.float32).clip(max=1.0),
        classes=classes[solid].astype(np.int64),
        hw=picture_hw,
        patches=PackedPatches(
            paste_mask(probabilities(cell, masks), box, picture_hw)
            for cell, box in zip(cells[solid], boxes, strict=True)
        ),
    )


def detection_count(count: Array, rows: int) -> int:
    """Read ``num_detections`` of one picture. Raises DeployError unless it is in 0..rows."""
    found = int(count)
    _need(0 <= found <= rows, f"{found} detections in {rows} rows")
    return found


def probabilities(cells: Array, masks: MaskForm) -> Float32:
    """Convert masks in the form that the bundle exports to probabilities, float32 in [0, 1].

    Runtimes' sigmoids are approximations: ONNX Runtime's gives 1 + 2**-23 for some logits. Values
    outside [0, 1] by at most :data:`ROUNDING` are clipped.

    Raises:
        DeployError: a probability is outside [0, 1], or a value is NaN.
    """
    if masks == "prob-u8":
        return cells.astype(np.float32) / np.float32(255)
    values: Float32 = cells.astype(np.float32)
    if masks == "logits":
        _need(not np.isnan(values).any(), "mask logits that are no numbers")
        with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf is right
            return np.float32(1) / (np.float32(1) + np.exp(-values))
    near = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
    _need(bool(near.all()), "mask probabilities outside [0, 1]")
    return np.clip(values, np.float32(0), np.float32(1))


def _need(good: bool, what: str) -> None:
    if not good:
        raise DeployError(
            f"the bundle gave {what}",
            "compare it with PyTorch (pointrend-deploy compare), and export it again",
        )


MaskGraph = Callable[[dict[str, Array]], Array]
"""One call of the mask graph: inputs by name, of R >= 1 boxes, in; masks (R, S, S) out."""


def with_masks(
    manifest: Manifest, detected: dict[str, Array], mask_graph: MaskGraph
) -> dict[str, Array]:
    """Add masks to a detector's outputs, as a single graph would give them.

    The mask graph is given only the rows with a detection, and is not called where there is none.

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
