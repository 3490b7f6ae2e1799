"""A bundle small enough to know its answers: class k wins where channel k is the brightest.

Its graph is a handful of ONNX nodes: the logits are the normalised picture itself (3 classes, one
a channel, in the recipe's order), the labels their argmax, and ``coarse`` their 4 x 4 averages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pointrend_deploy.bundle.folder import MODEL, WEIGHTS
from pointrend_deploy.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    Canvas,
    Manifest,
    Preprocess,
    TensorSpec,
    WeightsRecord,
    encode_manifest,
)
from pointrend_deploy.recipe.parts import (
    ClassesSpec,
    EfficientNetLiteSpec,
    FPNSpec,
    InputSpec,
    PointHeadSpec,
)
from pointrend_deploy.recipe.semantic import CoarseHeadSpec, Recipe, check_recipe

MEAN = (103.53, 116.28, 123.675)
STD = (57.375, 57.12, 58.395)
HW = tuple[int, int]


def tiny_recipe(channel_order: Literal["BGR", "RGB"] = "BGR") -> Recipe:
    """Three classes called after the channels of a BGR picture; a real, small architecture."""
    return check_recipe(
        Recipe(
            name="tiny",
            input=InputSpec(channel_order=channel_order, pixel_mean=MEAN, pixel_std=STD),
            classes=ClassesSpec(
                names=("blue", "green", "red"),
                colours=((0, 0, 255), (0, 255, 0), (255, 0, 0)),
            ),
            backbone=EfficientNetLiteSpec(),
            fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=32, top_level=False),
            coarse_head=CoarseHeadSpec(in_features=("p4",), channels=32, common_stride=16),
            point_head=PointHeadSpec(
                fc_dim=16, num_fc=1, subdivision_steps=4, subdivision_points=64
            ),
        )
    )


def tiny_manifest(
    size_hw: HW = (32, 48),
    batch: int = 1,
    outputs: Sequence[str] = ("labels",),
    location: Literal["outside", "in-graph"] = "outside",
    channel_order: Literal["BGR", "RGB"] = "BGR",
    weights: WeightsRecord | None = None,
    files: dict[str, str] | None = None,
) -> Manifest:
    height, width = (-(-side // 32) * 32 for side in size_hw)
    known = {
        "labels": TensorSpec(name="labels", dtype="uint8", shape=(batch, height, width)),
        "logits": TensorSpec(name="logits", dtype="float32", shape=(batch, 3, height, width)),
        "coarse": TensorSpec(
            name="coarse", dtype="float32", shape=(batch, 3, height // 4, width // 4)
        ),
    }
    outside = location == "outside"
    image = TensorSpec(
        name="image",
        dtype="float32" if outside else "uint8",
        shape=(batch, 3, height, width) if outside else (batch, height, width, 3),
    )
    extent = TensorSpec(name="extent", dtype="int64", shape=(batch, 2))
    return Manifest(
        schema=SCHEMA,
        name="tiny",
        created_by="tests",
        recipe=tiny_recipe(channel_order),
        canvas=Canvas(size_hw=size_hw, padded_hw=(height, width), batch=batch),
        preprocess=Preprocess(
            location=location, channel_order=channel_order, pixel_mean=MEAN, pixel_std=STD
        ),
        inputs=(image,) if outside else (image, extent),
        outputs=tuple(
            known.get(name) or TensorSpec(name=name, dtype="float32", shape=()) for name in outputs
        ),
        ops="native",
        opset=18,
        graphs={"fp32": MODEL},
        weights=weights
        or WeightsRecord(
            file=WEIGHTS,
            sha256="0" * 64,
            included=False,
            source_sha256="1" * 64,
            source_name="tiny.pkl",
        ),
        versions={},
        files=files or {},
    )


def write_tiny_bundle(path: Path, **options: Any) -> Path:
    """Write the bundle of ``tiny_manifest(**options)`` with its graph, and return its folder."""
    manifest = tiny_manifest(**options)
    return write_bundle(path, manifest, {MODEL: tiny_graph(manifest)})


def write_bundle(path: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    """Write files and a manifest that lists them."""
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    listed = msgspec.structs.replace(manifest, files=hashes)
    (path / MANIFEST).write_bytes(encode_manifest(listed))
    return path


def tiny_graph(manifest: Manifest) -> bytes:
    """``model.onnx`` of a manifest from ``tiny_manifest``."""
    nodes = []
    constants: dict[str, np.ndarray[Any, Any]] = {}
    logits = "image"
    if manifest.preprocess.location == "in-graph":
        height, width = manifest.canvas.padded_hw
        constants = {
            "mean": np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
            "std": np.array(STD, np.float32).reshape(1, 3, 1, 1),
            "rows": np.arange(height, dtype=np.int64).reshape(1, 1, height, 1),
            "columns": np.arange(width, dtype=np.int64).reshape(1, 1, 1, width),
            "first": np.array([0], np.int64),
            "second": np.array([1], np.int64),
            "shape": np.array([-1, 1, 1, 1], np.int64),
            "zero": np.zeros((), np.float32),
        }
        nodes = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Sub", ["planes", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
            helper.make_node("Gather", ["extent", "first"], ["high"], axis=1),
            helper.make_node("Gather", ["extent", "second"], ["wide"], axis=1),
            helper.make_node("Reshape", ["high", "shape"], ["h"]),
            helper.make_node("Reshape", ["wide", "shape"], ["w"]),
            helper.make_node("Less", ["rows", "h"], ["in_rows"]),
            helper.make_node("Less", ["columns", "w"], ["in_columns"]),
            helper.make_node("And", ["in_rows", "in_columns"], ["inside"]),
            helper.make_node("Where", ["inside", "normal", "zero"], ["masked"]),
        ]
        logits = "masked"
    nodes += [
        helper.make_node("Identity", [logits], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8),
        helper.make_node(
            "AveragePool", ["logits"], ["coarse"], kernel_shape=[4, 4], strides=[4, 4]
        ),
    ]

    def info(spec: TensorSpec) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return helper.make_tensor_value_info(spec.name, kind, spec.shape)

    graph = helper.make_graph(
        nodes,
        "tiny",
        [info(spec) for spec in manifest.inputs],
        [info(spec) for spec in manifest.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def colour_picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) uint8 RGB: smooth random colours, so that every class occurs in blobs."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
