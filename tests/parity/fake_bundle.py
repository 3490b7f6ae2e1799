"""A bundle that is only a manifest, and runners that are the page of numpy beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Canvas, Manifest, Preprocess, TensorSpec, WeightsRecord
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.recipe.semantic import Recipe
from tests.parity import tiny_pointrend as tiny

Array = npt.NDArray[Any]


def manifest(batch: int = 1, names: tuple[str, ...] = (), **changes: Any) -> Manifest:
    import msgspec

    recipe: Recipe = tiny.recipe()
    if names:
        recipe = msgspec.structs.replace(recipe, classes=ClassesSpec(names=names))
    record = WeightsRecord(
        file="weights.safetensors",
        sha256="a1" * 32,
        included=True,
        source_sha256="b2" * 32,
        source_name="model_final.pkl",
    )
    made = Manifest(
        schema=1,
        name="tiny",
        created_by="pointrend-deploy 0.1.0",
        recipe=recipe,
        canvas=Canvas(size_hw=(64, 96), padded_hw=(64, 96), batch=batch),
        preprocess=Preprocess(
            location="outside", channel_order="RGB", pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)
        ),
        inputs=(TensorSpec(name="image", dtype="float32", shape=(batch, 3, 64, 96)),),
        outputs=(TensorSpec(name="labels", dtype="uint8", shape=(batch, 64, 96)),),
        ops="plugin",
        opset=18,
        graphs={"fp32": "model.onnx"},
        weights=record,
        versions={"torch": "2.13.0", "onnx": "1.23.2"},
        files={"model.onnx": "c3" * 32, "weights.safetensors": "a1" * 32},
    )
    return msgspec.structs.replace(made, **changes)


class TinyRunner:
    """Stages that depend on the picture's content only; the candidate may carry a mistake."""

    def __init__(
        self, outputs: tuple[str, ...] = ("labels",), mistake: str = "", batch: int = 1
    ) -> None:
        self.name = "onnx"
        self.bundle = Bundle(Path("nowhere"), manifest(batch))
        self.outputs = outputs
        self.mistake = mistake
        self.calls = 0

    def canvas_stages(self, batch: dict[str, Array]) -> dict[str, Array]:
        images = batch["image"]
        assert images.shape == self.bundle.manifest.inputs[0].shape
        self.calls += 1
        noise = 2e-6 if self.outputs else 0.0
        each = [
            tiny.run(self.mistake, seed=int(image.sum()) % 997, noise=noise) for image in images
        ]
        return {name: np.concatenate([one[name] for one in each]) for name in each[0]}

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        stages = self.canvas_stages(batch)
        names = self.outputs if self.outputs != ("stages",) else tuple(stages)
        return {name: stages[name] for name in names}


def reference(batch: int = 1) -> TinyRunner:
    runner = TinyRunner(outputs=(), batch=batch)
    runner.name = "torch"
    return runner
