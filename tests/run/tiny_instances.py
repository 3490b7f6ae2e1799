"""An instance bundle small enough to know its answers: bright quarters of the canvas are things.

Quarter q = 0..3 of the canvas, row by row, is a thing of class q % 3 where the mean of its cells'
probabilities is above one half; that mean is its score. A cell is the sigmoid of the mean of the
normalised picture over 1/8 of the canvas each way, so a mask is 4 x 4. The box is the quarter, a
little smaller, clipped to the extent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pointrend_deploy.bundle.folder import DETECTOR, MASKS, MODEL
from pointrend_deploy.bundle.manifest import InstanceExport, Manifest, TensorSpec
from pointrend_deploy.recipe.instance import (
    BoxHeadSpec,
    CoarseMaskHeadSpec,
    InstanceClassesSpec,
    InstancePointHeadSpec,
    InstanceRecipe,
    RPNSpec,
)
from pointrend_deploy.recipe.parts import EfficientNetLiteSpec, FPNSpec, InputSpec
from tests.run.tiny_bundle import MEAN, STD, tiny_manifest, write_bundle

SIDE = 4
HW = tuple[int, int]
Arrays = dict[str, np.ndarray[Any, Any]]
MaskForm = Literal["prob", "prob-u8", "logits"]


def things_recipe() -> InstanceRecipe:
    """Three classes whose ids in the data set have gaps; a real, small architecture."""
    return InstanceRecipe(
        name="things",
        input=InputSpec(channel_order="BGR", pixel_mean=MEAN, pixel_std=STD),
        classes=InstanceClassesSpec(
            names=("cat", "traffic light", "bird"),
            colours=((220, 20, 60), (0, 130, 180), (250, 170, 30)),
            category_ids=(3, 17, 90),
        ),
        backbone=EfficientNetLiteSpec(),
        fpn=FPNSpec(in_features=("res2", "res3", "res4"), out_channels=8),
        rpn=RPNSpec(
            in_features=("p2", "p3", "p4", "p5"),
            anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,)),
            pre_nms_topk=60,
            post_nms_topk=40,
        ),
        box_head=BoxHeadSpec(in_features=("p2", "p3", "p4"), fc_dim=16, detections=20),
        mask_head=CoarseMaskHeadSpec(channels=8, fc_dim=16),
        point_head=InstancePointHeadSpec(fc_dim=8),
    )


def things_manifest(
    size_hw: HW = (32, 64),
    batch: int = 1,
    detections: int = 4,
    masks: MaskForm = "prob",
    layout: Literal["single", "split"] = "single",
    stages: Sequence[str] = (),
    recipe: InstanceRecipe | None = None,
    mask_side: int = SIDE,
    **semantic: Any,
) -> Manifest:
    """The manifest of the tiny graph; ``semantic`` is what ``tiny_manifest`` takes."""
    made = tiny_manifest(size_hw, batch, **semantic)
    n, d = batch, detections
    form = "uint8" if masks == "prob-u8" else "float32"
    p2 = TensorSpec(name="p2", dtype="float32", shape=(n, 1, 2 * SIDE, 2 * SIDE))
    known = {"p2": p2}
    found = (
        TensorSpec(name="num_detections", dtype="int64", shape=(n,)),
        TensorSpec(name="boxes", dtype="float32", shape=(n, d, 4)),
        TensorSpec(name="scores", dtype="float32", shape=(n, d)),
        TensorSpec(name="classes", dtype="int64", shape=(n, d)),
    )
    export = InstanceExport(detections=d, masks=masks, mask_side=mask_side, layout=layout)
    if layout == "split":
        outputs: tuple[TensorSpec, ...] = (*found, p2)
        export = msgspec.structs.replace(
            export,
            mask_graphs={"fp32": MASKS},
            mask_inputs=(
                TensorSpec(name="boxes", dtype="float32", shape=(-1, 4)),
                TensorSpec(name="classes", dtype="int64", shape=(-1,)),
                msgspec.structs.replace(p2, shape=(1, *p2.shape[1:])),
            ),
            mask_outputs=(TensorSpec(name="masks", dtype=form, shape=(-1, mask_side, mask_side)),),
        )
    else:
        shape = (n, d, mask_side, mask_side)
        further = (known.get(s) or TensorSpec(name=s, dtype="float32", shape=()) for s in stages)
        outputs = (*found, TensorSpec(name="masks", dtype=form, shape=shape), *further)
    return msgspec.structs.replace(
        made,
        name="things",
        recipe=recipe or things_recipe(),
        inputs=(made.inputs[0], TensorSpec(name="extent", dtype="int64", shape=(n, 2))),
        outputs=outputs,
        graphs={"fp32": DETECTOR if layout == "split" else MODEL},
        instance=export,
    )


def write_things_bundle(path: Path, **options: Any) -> Path:
    """Write the bundle of ``things_manifest(**options)`` with its graphs, and return its folder."""
    manifest = things_manifest(**options)
    return write_bundle(path, manifest, things_graphs(manifest))


def things_graphs(manifest: Manifest) -> dict[str, bytes]:
    """The graph files of a manifest from ``things_manifest``."""
    _, export = manifest.instances
    if export.layout == "single":
        nodes, constants = _detector(manifest)
        nodes += [
            *_quarters("p2", manifest.canvas.batch),
            helper.make_node("GatherND", ["quarters", "at"], ["logit_masks"], batch_dims=1),
            *_masks("logit_masks", "found_masks", export.masks),
            helper.make_node("Reshape", ["keep", "for_masks"], ["keep_masks"]),
            helper.make_node("Where", ["keep_masks", "found_masks", "no_mask"], ["masks"]),
        ]
        form = np.uint8 if export.masks == "prob-u8" else np.float32
        constants["no_mask"] = np.zeros((), form)
        constants["for_masks"] = np.array([0, 0, 1, 1], np.int64)
        return {MODEL: _model(nodes, constants, manifest.inputs, manifest.outputs)}
    nodes, constants = _detector(manifest)
    detector = _model(nodes, constants, manifest.inputs, manifest.outputs)
    height, width = manifest.canvas.padded_hw
    middle = {"middle": np.array([[width / 2 - 1, height / 2 - 1]], np.float32)}
    middle |= {"corner": np.array([0, 1], np.int64), "weights": np.array([[1], [2]], np.int64)}
    nodes = [
        *_quarters("p2", 1),
        helper.make_node("Gather", ["boxes", "corner"], ["corners"], axis=1),
        helper.make_node("Greater", ["corners", "middle"], ["beyond"]),
        helper.make_node("Cast", ["beyond"], ["beyond_one"], to=TensorProto.INT64),
        helper.make_node("MatMul", ["beyond_one", "weights"], ["which"]),  # right + 2 * lower
        helper.make_node("Squeeze", ["quarters", "first"], ["of_picture"]),
        helper.make_node("GatherND", ["of_picture", "which"], ["logit_masks"]),
        *_masks("logit_masks", "masks", export.masks),
    ]
    constants = {**middle, **_mask_constants(1), "first": np.array([0], np.int64)}
    return {
        DETECTOR: detector,
        MASKS: _model(nodes, constants, export.mask_inputs, export.mask_outputs),
    }


def _mask_constants(batch: int) -> Arrays:
    return {
        "in_quarters": np.array([batch, 2, SIDE, 2, SIDE], np.int64),
        "stacked": np.array([batch, 4, SIDE, SIDE], np.int64),
        "full": np.array(255, np.float32),
    }


def _quarters(source: str, batch: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Reshape", [source, "in_quarters"], ["split"]),
        helper.make_node("Transpose", ["split"], ["by_quarter"], perm=[0, 1, 3, 2, 4]),
        helper.make_node("Reshape", ["by_quarter", "stacked"], ["quarters"]),
    ]


def _masks(logits: str, out: str, form: MaskForm) -> list[onnx.NodeProto]:
    if form == "logits":
        return [helper.make_node("Identity", [logits], [out])]
    if form == "prob":
        return [helper.make_node("Sigmoid", [logits], [out])]
    return [
        helper.make_node("Sigmoid", [logits], ["probability"]),
        helper.make_node("Mul", ["probability", "full"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], [out], to=TensorProto.UINT8),
    ]


def quarter_boxes(padded_hw: HW) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The four boxes in pixels of the canvas, before they are clipped to the extent."""
    h, w = padded_hw[0] / 2, padded_hw[1] / 2
    corners = [(x * w, y * h) for y in (0, 1) for x in (0, 1)]
    boxes = [(x + 0.25, y + 0.5, x + w - 0.75, y + h - 0.25) for x, y in corners]
    return np.array(boxes, np.float32)


def _detector(manifest: Manifest) -> tuple[list[onnx.NodeProto], Arrays]:
    """Nodes up to num_detections, boxes, scores, classes, p2 and (N, D, 1) indices ``at``."""
    n, (height, width) = manifest.canvas.batch, manifest.canvas.padded_hw
    _, export = manifest.instances
    d = export.detections
    cell = [height // (2 * SIDE), width // (2 * SIDE)]
    constants: Arrays = {
        **_mask_constants(n),
        "channel": np.array([1], np.int64),
        "cells": np.array([2, 3], np.int64),
        "best": np.array([d], np.int64),
        "half": np.array(0.5, np.float32),
        "row": np.arange(d, dtype=np.int64)[None],
        "last": np.array([2], np.int64),
        "count_shape": np.array([n, 1], np.int64),
        "corners": quarter_boxes((height, width)),
        "xyxy": np.array([1, 0, 1, 0], np.int64),
        "three": np.array(3, np.int64),
        "zero": np.array(0, np.float32),
        "none": np.array(0, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["image", "channel"], ["grey"], keepdims=1),
        node("AveragePool", ["grey"], ["p2"], kernel_shape=cell, strides=cell),
        node("Sigmoid", ["p2"], ["cell_probability"]),
        node("Reshape", ["cell_probability", "in_quarters"], ["s0"]),
        node("Transpose", ["s0"], ["s1"], perm=[0, 1, 3, 2, 4]),
        node("Reshape", ["s1", "stacked"], ["s2"]),
        node("ReduceMean", ["s2", "cells"], ["quarter_scores"], keepdims=0),
        node("TopK", ["quarter_scores", "best"], ["top", "which"]),
        node("Greater", ["top", "half"], ["keep"]),
        node("Cast", ["keep"], ["kept"], to=TensorProto.INT64),
        node("ReduceSum", ["kept", "channel"], ["num_detections"], keepdims=0),
        node("Unsqueeze", ["keep", "last"], ["keep_boxes"]),
        node("Gather", ["corners", "which"], ["unclipped"]),
        node("Cast", ["extent"], ["hw"], to=TensorProto.FLOAT),
        node("Gather", ["hw", "xyxy"], ["most"], axis=1),
        node("Unsqueeze", ["most", "channel"], ["limits"]),
        node("Min", ["unclipped", "limits"], ["clipped"]),
        node("Where", ["keep_boxes", "clipped", "zero"], ["boxes"]),
        node("Where", ["keep", "top", "zero"], ["scores"]),
        node("Mod", ["which", "three"], ["label"]),
        node("Where", ["keep", "label", "none"], ["classes"]),
        node("Unsqueeze", ["which", "last"], ["at"]),
    ]
    return nodes, constants


def _model(
    nodes: list[onnx.NodeProto],
    constants: Arrays,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> bytes:
    def info(spec: TensorSpec) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        shape = ["R" if size == -1 else size for size in spec.shape]
        return helper.make_tensor_value_info(spec.name, kind, shape)

    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "things",
        [info(spec) for spec in inputs],
        [info(spec) for spec in outputs],
        [numpy_helper.from_array(v, name) for name, v in constants.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def expected_outputs(batch: Arrays, manifest: Manifest) -> Arrays:
    """What the graph gives, in numpy: the five outputs, masks as probabilities."""
    _, export = manifest.instances
    n, (height, width) = manifest.canvas.batch, manifest.canvas.padded_hw
    s, d = 2 * SIDE, export.detections
    pooled = batch["image"].mean(1).reshape(n, s, height // s, s, width // s).mean((2, 4))
    cells = 1 / (1 + np.exp(-pooled.reshape(n, 2, SIDE, 2, SIDE).transpose(0, 1, 3, 2, 4)))
    cells = cells.reshape(n, 4, SIDE, SIDE)
    out: Arrays = {
        "num_detections": np.zeros(n, np.int64),
        "boxes": np.zeros((n, d, 4), np.float32),
        "scores": np.zeros((n, d), np.float32),
        "classes": np.zeros((n, d), np.int64),
        "masks": np.zeros((n, d, SIDE, SIDE), np.float32),
    }
    for row in range(n):
        scores = cells[row].mean((1, 2))
        order = [q for q in np.argsort(-scores, kind="stable") if scores[q] > 0.5][:d]
        count = len(order)
        limit = batch["extent"][row][[1, 0, 1, 0]]
        out["num_detections"][row] = count
        out["boxes"][row, :count] = np.minimum(quarter_boxes((height, width))[order], limit)
        out["scores"][row, :count] = scores[order]
        out["classes"][row, :count] = np.array(order, np.int64) % 3
        out["masks"][row, :count] = cells[row][order]
    return out


def bright_picture(
    height: int, width: int, bright: Sequence[int], seed: int = 0
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) uint8, dark but for the quarters listed, which are bright in blobs."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    for quarter in bright:
        y, x = divmod(quarter, 2)
        rows = slice(y * height // 2, (y + 1) * height // 2)
        columns = slice(x * width // 2, (x + 1) * width // 2)
        part = picture[rows, columns]
        v, u = np.mgrid[: part.shape[0], : part.shape[1]]
        middle = (part.shape[0] / 2, part.shape[1] / 2)
        round_ = ((v - middle[0]) / middle[0]) ** 2 + ((u - middle[1]) / middle[1]) ** 2 < 0.9
        part[round_] = 255 - rng.integers(0, 30 + 10 * quarter, (int(round_.sum()), 3))
    return picture
