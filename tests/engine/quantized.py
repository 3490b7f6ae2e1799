"""FP16 and INT8 graphs of an FP32 one, with ranges that need no pictures."""

from __future__ import annotations

import onnx

from pointrend_deploy.bundle.records import QuantizedRecord
from pointrend_deploy.quantize.fp16 import to_half
from pointrend_deploy.quantize.placement import observable, place
from pointrend_deploy.quantize.qdq import insert


def int8_of(
    model: onnx.ModelProto, fallback: str = "fp16", linear_fp16: bool = False
) -> onnx.ModelProto:
    """The graph with Q/DQ nodes where the rule puts them; every range ends at four.

    Args:
        model: in FP32.
        fallback: fp16 or fp32.
        linear_fp16: whether linear layers have FP16 scales, which they must not.
    """
    placement = place(model)
    linear = {n.name for n in model.graph.node if n.op_type in ("Gemm", "MatMul")}
    keep = () if linear_fp16 else linear & set(placement.int8)
    base = model if fallback == "fp32" else to_half(model, keep).model
    return insert(base, placement, dict.fromkeys(observable(model), 4.0), model)


def record_of(*models: onnx.ModelProto, fallback: str = "fp16") -> QuantizedRecord:
    """What `quantize` would write down of the INT8 graphs of these FP32 ones."""
    placements = [place(model) for model in models]
    return QuantizedRecord(
        fallback=fallback,  # type: ignore[arg-type]
        int8=tuple(name for placement in placements for name in placement.int8),
        left_out={k: v for placement in placements for k, v in placement.left_out.items()},
    )
