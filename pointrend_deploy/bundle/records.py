"""The manifest's records: what was not checked, and what `quantize` and `build` made."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pointrend_deploy.bundle.forms import Ops, Precision


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the manifest."""


class NotChecked(_Part, frozen=True):
    """A value of the recipe that nothing in the checkpoint was compared with.

    Attributes:
        key: path of the key in the recipe.
        value: the recipe's value, as JSON has it.
        why: what of it was checked all the same; empty where nothing was.
    """

    key: str
    value: Any
    why: str = ""


class QuantizedRecord(_Part, frozen=True):
    """How `quantize` made the graphs of one precision from the FP32 graphs.

    Names are those of the graphs' nodes with weights, which are the modules' paths.

    Attributes:
        fallback: type of the nodes with weights that are not in ``int8`` and not in ``fp32``.
        fp32: nodes with weights that stayed in FP32, by the user's choice.
        int8: nodes with weights that compute in INT8; empty for fp16.
        left_out: nodes with weights that do not compute in INT8, each with the reason; empty for
            fp16.
        int8_flops: share, in 0..1, of the FLOPs meant for INT8 that are in it; None for fp16.
        method: of the ranges: entropy, percentile, mse, max, or cache (a TensorRT calibration
            cache); None for fp16.
        ranges_sha256: of the file the ranges came from; None for fp16.
        pictures: number of calibration pictures; None where it is not known.
        sources: SHA-256 of each FP32 graph that was quantized, by file name.
    """

    fallback: Literal["fp16", "fp32"]
    fp32: tuple[str, ...] = ()
    int8: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    int8_flops: float | None = None
    method: str | None = None
    ranges_sha256: str | None = None
    pictures: int | None = None
    sources: dict[str, str] = {}


class PartShape(_Part, frozen=True):
    """The layers of one part of a network in an engine; see :class:`EngineShape`.

    Attributes:
        layers: number of layers.
        plugins: those that are plugins.
        reformats: those that only move values.
        bytes: what all of them read and write.
    """

    layers: int
    plugins: int
    reformats: int
    bytes: int


class EngineShape(_Part, frozen=True):
    """An engine's layers and bytes, counted in its own table of layers; nothing is measured.

    Attributes:
        layers: number of layers that run.
        plugins: number of plugin layers by op.
        reformats: layers that only move values: transpose, copy, slice, join, cast.
        bytes: inputs and outputs of every layer as the table lists them, in one call; a tensor
            that two layers read counts twice.
        constant_bytes: weights and other constants that the layers hold.
        parts: the same by part of the network, in the order they run; the part ``rest`` has the
            layers whose part nothing tells.
        sizes: value of each dynamic dimension that was counted with; empty where all are static.
    """

    layers: int
    plugins: dict[str, int]
    reformats: int
    bytes: int
    constant_bytes: int
    parts: dict[str, PartShape]
    sizes: dict[str, int] = {}


class EngineFile(_Part, frozen=True):
    """An engine and the graph it was built from.

    Attributes:
        file: of the engine, as ``files`` names it.
        sha256: of the engine.
        source: the graph's file.
        source_sha256: of the graph when the engine was built.
        size: of the engine in bytes; 0 in a bundle of an earlier version.
        shape: its layers and bytes, counted; None in a bundle of an earlier version.
    """

    file: str
    sha256: str
    source: str
    source_sha256: str
    size: int = 0
    shape: EngineShape | None = None


class EngineRun(_Part, frozen=True):
    """Engines that ran on the GPU that built them, beside their graphs in ONNX Runtime.

    Attributes:
        pictures: number of pictures they ran on.
        answers: what was compared.
        compared: number of labels (pixels) or of detections.
        agreement: share in 0..1 of them that both sides have.
        mask_iou: mean IoU of the masks that both have; None where there are none.
        onnxruntime: version that ran the graphs.
    """

    pictures: int
    answers: Literal["labels", "detections"]
    compared: int
    agreement: float
    mask_iou: float | None
    onnxruntime: str


class EngineRecord(_Part, frozen=True):
    """A folder under ``engines/``: what was built, by which builder, for which GPU.

    Attributes:
        builder: ``tensorrt`` or ``tensorrt_rtx``.
        version: of the builder; an engine runs under the same version only.
        platform: system and processor of the machine that built it: "Linux aarch64".
        capability: compute capability that it was built for: 87 for 8.7.
        gpu: name of the GPU that built it; None where it was built without that GPU.
        precision: of the graph.
        ops: whether custom nodes became plugins.
        workspace_mib: bound on a layer's scratch memory.
        plugin_sha256: of the plugin library that it was built with and needs; None without plugins.
        plugin_tensorrt: version of the headers that library was compiled with.
        timing_cache: whether timings of an earlier build were used; None where the builder keeps
            none.
        engines: one for each graph, in the order they run.
        ran: how they answered on the GPU that built them; None where they were built without it,
            or by an earlier version.
    """

    builder: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    platform: str
    capability: int
    gpu: str | None
    precision: Precision
    ops: Ops
    workspace_mib: int
    plugin_sha256: str | None
    plugin_tensorrt: str | None
    timing_cache: Literal["new", "reused"] | None
    engines: tuple[EngineFile, ...]
    ran: EngineRun | None = None
