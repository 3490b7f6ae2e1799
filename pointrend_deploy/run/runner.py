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
from pointrend_deploy.run.task import task_of

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
AnyPrediction = Mapping[str, Any]
"""A prediction of one picture: ``Prediction`` or ``InstancePrediction``, by the bundle's task; see
``task.py`` in ``semantic`` and ``instance``."""


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
        if set(batch) != set(expected):
            raise DeployError(
                f"the bundle takes the inputs {sorted(expected)}, not {sorted(batch)}"
            )
        for name, spec in expected.items():
            array = batch[name]
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

    def finish(self, outputs: dict[str, Array], row: int, picture: Fitted) -> AnyPrediction:
        """Make the prediction of the picture in one row of a batch's outputs.

        Raises:
            DeployError: the outputs cannot be right.
        """
        return self.task.finish(outputs, row, picture)

    def predict(self, image: UInt8) -> AnyPrediction:
        """Predict for one picture, H x W x 3 uint8 in the recipe's channel order."""
        return self.predict_all([image])[0]

    def predict_all(self, images: Sequence[UInt8]) -> list[AnyPrediction]:
        """Predict for any number of pictures, in order, in batches of the bundle's size."""
        manifest = self.bundle.manifest
        predictions: list[AnyPrediction] = []
        for batch in in_batches(map(self.prepare, images), manifest.canvas.batch):
            outputs = self.infer(batch_of(batch, manifest))
            predictions += [self.finish(outputs, row, item) for row, item in enumerate(batch)]
        return predictions

    @overload
    def __call__(self, images: UInt8) -> AnyPrediction: ...
    @overload
    def __call__(self, images: list[UInt8] | tuple[UInt8, ...]) -> dict[str, list[Any]]: ...
    def __call__(
        self, images: UInt8 | list[UInt8] | tuple[UInt8, ...]
    ) -> AnyPrediction | dict[str, list[Any]]:
        """Run the bundle on one picture or on a list of them.

        Args:
            images: H x W x 3 uint8 **in the recipe's channel order** (as ``model.stages`` takes it;
                ``pictures.canvas.from_rgb`` turns RGB into it), any size; or a list of such arrays
                of any length.

        Returns:
            For one picture a ``Prediction`` (semantic bundle) or an ``InstancePrediction``; for a
            list the same keys, each with a list in the order of the pictures.

        Raises:
            DeployError: a picture has another shape or dtype, or the outputs of an instance
                bundle cannot be right.
        """
        if not isinstance(images, (list, tuple)):
            return self.predict(images)
        predictions = self.predict_all(images)
        columns: dict[str, list[Any]] = {name: [] for name in self.task.keys}
        for prediction in predictions:
            for key, value in prediction.items():
                columns.setdefault(key, []).append(value)
        return columns
