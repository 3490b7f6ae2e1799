"""One way to call a bundle in any program: pictures in, predictions at their own size out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.forms import Precision
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.batches import in_batches
from pointrend_deploy.pictures.canvas import Fitted, batch_of
from pointrend_deploy.pictures.given import Color, Given, in_order
from pointrend_deploy.run.prediction import Prediction
from pointrend_deploy.run.task import task_of

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]


class BundleRunner(ABC):
    """The base class of all runners; each adds ``_infer``.

    Args:
        bundle: opened.

    Attributes:
        name: of the program that runs the bundle.
        bundle: as given.
        task: the kind of the bundle's model.
        precision: of the numbers it computes with.
    """

    name: str
    precision: Precision = "fp32"

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.task = task_of(bundle.manifest)

    def __repr__(self) -> str:
        """Name the runner, its model, size, precision and channel order in one line."""
        return f"<{type(self).__name__}: {self.bundle.manifest.in_short(self.precision)}>"

    @abstractmethod
    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Do what ``infer`` does, with a batch that was checked."""

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Run the bundle's graphs once.

        Args:
            batch: the manifest's inputs by name, in exactly their shapes and dtypes; see
                :func:`pointrend_deploy.pictures.canvas.batch_of`.

        Returns:
            The manifest's outputs by name, in its order. Those of an instance bundle, in either
            layout, begin with ``num_detections``, ``boxes``, ``scores``, ``classes``, ``masks``.

        Raises:
            DeployError: an input is missing, unknown, or of another shape or dtype.
        """
        expected = {spec.name: spec for spec in self.bundle.manifest.inputs}
        if not isinstance(batch, Mapping):
            raise DeployError(
                f"a batch is a dictionary of the inputs {sorted(expected)}, not "
                f"{type(batch).__name__}",
                "of a picture, call the runner itself: runner(picture)",
            )
        if set(batch) != set(expected):
            raise DeployError(
                f"the bundle takes the inputs {sorted(expected)}, not {sorted(batch)}"
            )
        for name, spec in expected.items():
            array = batch[name]
            if not isinstance(array, np.ndarray):
                raise DeployError(f"input {name} must be a numpy array, not {type(array).__name__}")
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise DeployError(
                    f"input {name} must be {spec.dtype} {list(spec.shape)}, "
                    f"not {array.dtype} {list(array.shape)}"
                )
        if "extent" in batch:
            self._check_extent(batch["extent"])
        return self._infer(batch)

    def _check_extent(self, extent: Array) -> None:
        canvas = self.bundle.manifest.canvas.padded_hw
        if not ((extent >= 1) & (extent <= canvas)).all():
            raise DeployError(
                f"extent is the height and width of each picture on the canvas, at least 1 and at "
                f"most {list(canvas)}, not {extent.tolist()}"
            )

    def prepare(self, image: UInt8) -> Fitted:
        """Put one picture on the bundle's canvas. Raises DeployError unless H x W x 3 uint8."""
        return self.task.fit(image)

    def finish(self, outputs: dict[str, Array], row: int, picture: Fitted) -> Prediction:
        """Make the prediction of the picture in one row of a batch's outputs.

        Raises:
            DeployError: the outputs cannot be right.
        """
        return self.task.finish(outputs, row, picture)

    def predict(self, image: Given, color: Color | None = None) -> Prediction:
        """Predict for one picture; see :meth:`__call__`."""
        return self.predict_all([image], color)[0]

    def predict_all(self, images: Sequence[Given], color: Color | None = None) -> list[Prediction]:
        """Predict for any number of pictures, in order, in batches of the bundle's size.

        Arguments and errors are those of :meth:`__call__`. Pixels of files are not kept.
        """
        if not isinstance(images, (list, tuple)):
            raise DeployError(
                f"predict_all takes a list of pictures, not {type(images).__name__}",
                "predict(picture) is for one; list(...) makes a list of what gives pictures",
            )
        manifest = self.bundle.manifest
        order: Color = "bgr" if manifest.preprocess.channel_order == "BGR" else "rgb"
        fitted = (self.prepare(in_order(image, order, color)) for image in images)
        predictions: list[Prediction] = []
        for batch in in_batches(fitted, manifest.canvas.batch):
            outputs = self.infer(batch_of(batch, manifest))
            for row, item in enumerate(batch):
                prediction = self.finish(outputs, row, item)
                prediction.note_picture(images[len(predictions)], color or order)
                predictions.append(prediction)
        return predictions

    @overload
    def __call__(self, images: Given, color: Color | None = None) -> Prediction: ...
    @overload
    def __call__(
        self, images: list[Given] | tuple[Given, ...], color: Color | None = None
    ) -> dict[str, list[Any]]: ...
    def __call__(
        self, images: Given | list[Given] | tuple[Given, ...], color: Color | None = None
    ) -> Prediction | dict[str, list[Any]]:
        """Run the bundle on one picture or on a list of them.

        Args:
            images: an H x W x 3 uint8 array, a file's path (``str`` or ``Path``) or a PIL picture,
                of any size; or a list of any number of them. Files and PIL pictures are made
                upright by their EXIF orientation and converted to RGB as `run` does.
            color: channel order of the arrays, ``"rgb"`` or ``"bgr"``; None where they are in the
                recipe's own order, as ``model.stages`` takes them. It does not concern files and
                PIL pictures, whose channels are known.

        Returns:
            For one picture a ``LabelPrediction`` (semantic bundle) or an ``InstancePrediction``:
            a dictionary with ``class_names`` and ``draw()``. For a list the same keys, each with
            a list in the order of the pictures; :meth:`predict_all` gives the predictions of a
            list one by one.

        Raises:
            DeployError: a picture cannot be read or is an array of another shape or dtype, or the
                outputs of an instance bundle cannot be right.
            UsageError: ``color`` is neither ``"rgb"`` nor ``"bgr"``.
        """
        if not isinstance(images, (list, tuple)):
            return self.predict(images, color)
        predictions = self.predict_all(images, color)
        columns: dict[str, list[Any]] = {name: [] for name in self.task.keys}
        for prediction in predictions:
            for key, value in prediction.items():
                columns.setdefault(key, []).append(value)
        return columns
