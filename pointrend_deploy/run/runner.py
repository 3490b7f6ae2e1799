"""One way to call a bundle, whatever runs it: pictures in, answers at each one's own size out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol, overload

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.canvas import Fitted, batch_of, fit
from pointrend_deploy.run.instance.task import InstancePrediction, instance_prediction
from pointrend_deploy.run.semantic.task import Prediction, semantic_prediction

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
AnyPrediction = Prediction | InstancePrediction
RunnerName = Literal["auto", "onnx", "torch", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]


class Runner(Protocol):
    """Anything that runs a bundle."""

    name: str
    bundle: Bundle

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call of the graph: exactly its inputs in, all its outputs out, by name."""

    def predict(self, image: UInt8) -> AnyPrediction:
        """Labels or instances (and logits and stages, where exported) of one picture."""


class BundleRunner(ABC):
    """What every runner has in common; a runner adds ``_infer``."""

    name: str

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @abstractmethod
    def _infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """``infer`` on a batch already checked."""

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        """One call of the graph.

        Args:
            batch: the manifest's inputs by name, in exactly their shapes and dtypes; see
                :func:`pointrend_deploy.pictures.canvas.batch_of`.

        Returns:
            The manifest's outputs by name, in its order. Of an instance bundle always
            ``num_detections``, ``boxes``, ``scores``, ``classes`` and ``masks`` first, whatever
            its layout.

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
        """One picture on the bundle's canvas. Raises DeployError unless H x W x 3 uint8."""
        return fit(image, self.bundle.manifest)

    def finish(self, outputs: dict[str, Array], row: int, picture: Fitted) -> AnyPrediction:
        """The prediction of the picture in one row of a batch's outputs.

        Raises:
            DeployError: the outputs of an instance bundle cannot be right.
        """
        if self.bundle.manifest.recipe.task == "instance":
            return instance_prediction(self.bundle.manifest, outputs, row, picture)
        return semantic_prediction(outputs, row, picture)

    def predict(self, image: UInt8) -> AnyPrediction:
        """The prediction for one H x W x 3 uint8 picture in the recipe's channel order."""
        return self.predict_all([image])[0]

    def predict_all(self, images: Sequence[UInt8]) -> list[AnyPrediction]:
        """The predictions for any number of pictures, in order, in batches of the bundle's size."""
        manifest = self.bundle.manifest
        predictions: list[AnyPrediction] = []
        for start in range(0, len(images), manifest.canvas.batch):
            fitted = [
                self.prepare(image) for image in images[start : start + manifest.canvas.batch]
            ]
            outputs = self.infer(batch_of(fitted, manifest))
            predictions += [self.finish(outputs, row, item) for row, item in enumerate(fitted)]
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
                ``run.preprocess.from_rgb`` turns RGB into it), any size; or a list of such arrays
                of any length. The last batch of a list is filled up and trimmed.

        Returns:
            For one picture a :class:`Prediction`, of an instance bundle an
            :class:`InstancePrediction`; for a list the same keys, each holding a list in the order
            of the pictures.

        Raises:
            DeployError: a picture has another shape or dtype, or what an instance bundle gave
                cannot be right.
        """
        if not isinstance(images, (list, tuple)):
            return self.predict(images)
        predictions = self.predict_all(images)
        instance = self.bundle.manifest.recipe.task == "instance"
        always = ("instances",) if instance else ("labels", "labels_from")
        columns: dict[str, list[Any]] = {name: [] for name in always}
        for prediction in predictions:
            for key, value in prediction.items():
                columns.setdefault(key, []).append(value)
        return columns
