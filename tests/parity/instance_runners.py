"""A small instance model twice: the reference in float32, and as a bundle would answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.model.instance.model import InstanceModel
from pointrend_deploy.parity.instance.masks import MaskForm
from pointrend_deploy.parity.instance.picture import ToCompare
from pointrend_deploy.parity.instance.reference import TorchPicture
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.run.instance.instances import OUTPUTS
from tests.model import tiny_instance
from tests.parity.imitated_graph import answers
from tests.run.tiny_instances import things_manifest

Array = npt.NDArray[Any]
Mistake = Callable[[dict[str, Array]], None]
CANVAS = (96, 128)
SIZES = ((96, 128), (90, 60), (33, 200), (200, 170), (48, 64), (130, 131), (64, 96), (20, 20))


def manifest(
    recipe: InstanceRecipe = tiny_instance.POINTREND, batch: int = 1, masks: MaskForm = "prob"
) -> Manifest:
    made = things_manifest(
        size_hw=CANVAS,
        batch=batch,
        detections=recipe.box_head.detections,
        masks=masks,
        recipe=recipe,
        mask_side=recipe.mask_side,
    )
    spec = recipe.input
    preprocess = msgspec.structs.replace(
        made.preprocess,
        channel_order=spec.channel_order,
        pixel_mean=spec.pixel_mean,
        pixel_std=spec.pixel_std,
    )
    return msgspec.structs.replace(made, name=recipe.name, preprocess=preprocess)


class Sides:
    """Both sides of one model. The bundle's answers are the reference's in float64 arithmetic."""

    def __init__(
        self,
        described: Manifest,
        mistake: Mistake | None = None,
        model: InstanceModel | None = None,
    ) -> None:
        recipe, self._export = described.instances
        self.name = "onnx"
        self.bundle = Bundle(Path("nowhere"), described)
        self.model = model or tiny_instance.model(recipe)
        self._exact = copy.deepcopy(self.model).double()
        self._mistake = mistake

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        extents = tuple((int(h), int(w)) for h, w in batch["extent"])
        x = torch.from_numpy(batch["image"]).double()
        found = answers(self._exact, x, extents, self._export.masks).outputs
        outputs = {name: found[name] for name in OUTPUTS}
        if self._mistake is not None:
            self._mistake(outputs)
        return outputs

    def reference(self, batch: dict[str, Array], row: int) -> TorchPicture:
        height, width = (int(v) for v in batch["extent"][row])
        x = torch.from_numpy(batch["image"][row : row + 1])
        return TorchPicture(self.model, x, (height, width))


def pictures(
    folder: Path, sizes: Sequence[tuple[int, int]] = SIZES, first_id: int | None = None
) -> list[ToCompare]:
    folder.mkdir(exist_ok=True)
    found = []
    for index, (height, width) in enumerate(sizes):
        path = folder / f"{index}.png"
        Image.fromarray(tiny_instance.picture(height, width, index)).save(path)
        number = None if first_id is None else first_id + index
        found.append(ToCompare(f"{index}", path, number))
    return found


def changed(name: str, where: tuple[Any, ...], change: Callable[[Array], Any]) -> Mistake:
    """A mistake in one output."""

    def apply(outputs: dict[str, Array]) -> None:
        outputs[name][where] = change(outputs[name][where])

    return apply


def dropped(row: int) -> Mistake:
    """The detection of one row left out; those below move up."""

    def apply(outputs: dict[str, Array]) -> None:
        for name in OUTPUTS[1:]:
            rows = outputs[name][0]
            rows[row:-1] = rows[row + 1 :].copy()
            rows[-1] = 0
        outputs["num_detections"][0] -= 1

    return apply


def doubled(row: int) -> Mistake:
    """A detection said twice, the last one pushed out."""

    def apply(outputs: dict[str, Array]) -> None:
        for name in OUTPUTS[1:]:
            rows = outputs[name][0]
            rows[row + 1 :] = rows[row:-1].copy()

    return apply


def blank(mask: Array) -> Array:
    return np.zeros_like(mask)
