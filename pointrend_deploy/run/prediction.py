"""What a bundle says of one picture, by task, and how that is found from a batch's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from pointrend_deploy.manifest import Manifest
from pointrend_deploy.run.instances import OUTPUTS, Instances, instances_at_picture_size
from pointrend_deploy.run.postprocess import LabelsFrom, labels_at_picture_size
from pointrend_deploy.run.preprocess import Fitted

Array = npt.NDArray[Any]


class _Labels(TypedDict):
    labels: npt.NDArray[np.uint8]
    labels_from: LabelsFrom


class Prediction(_Labels, total=False):
    """What a semantic bundle says of one picture.

    Keys:
        labels: (H, W) uint8 at the picture's own size.
        labels_from: ``exact``, ``logits-bilinear`` or ``labels-nearest``; see
            :func:`pointrend_deploy.run.postprocess.labels_at_picture_size`.
        logits: (C, Hp, Wp) float32 on the padded canvas; only where the bundle exports them.
        stages: every other output by name, without its batch axis; only where exported.
    """

    logits: npt.NDArray[np.float32]
    stages: dict[str, Array]


class _Instances(TypedDict):
    instances: Instances


class InstancePrediction(_Instances, total=False):
    """What an instance bundle says of one picture.

    Keys:
        instances: boxes, scores, classes and masks at the picture's own size.
        stages: every output beside the five that all instance bundles give, by name, without its
            batch axis; only where exported.
    """

    stages: dict[str, Array]


def semantic_prediction(outputs: Mapping[str, Array], row: int, picture: Fitted) -> Prediction:
    """The prediction of the picture in one row of a batch's outputs."""
    rows = {name: array[row] for name, array in outputs.items()}
    labels, logits = rows.pop("labels", None), rows.pop("logits", None)
    found, labels_from = labels_at_picture_size(
        labels, logits, picture.fitted_hw, picture.picture_hw
    )
    prediction = Prediction(labels=found, labels_from=labels_from)
    if logits is not None:
        prediction["logits"] = logits
    if rows:
        prediction["stages"] = rows
    return prediction


def instance_prediction(
    manifest: Manifest, outputs: Mapping[str, Array], row: int, picture: Fitted
) -> InstancePrediction:
    """The prediction of the picture in one row of a batch's outputs.

    Raises:
        DeployError: the bundle is semantic, or its outputs cannot be right; see
            :func:`pointrend_deploy.run.instances.instances_at_picture_size`.
    """
    recipe, export = manifest.instances
    rows = {name: array[row] for name, array in outputs.items()}
    prediction = InstancePrediction(
        instances=instances_at_picture_size(
            rows, export.masks, picture.fitted_hw, picture.picture_hw, recipe.num_classes
        )
    )
    if stages := {name: array for name, array in rows.items() if name not in OUTPUTS}:
        prediction["stages"] = stages
    return prediction
