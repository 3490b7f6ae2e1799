"""A freshly built engine's answers beside those of its own graph, on the same batch.

The engine and its graph are of one precision, so they may differ by rounding only. In FP32 that is
held by the limits of an export. In FP16 and INT8 the rounding is larger, and how many answers it
decides depends on the picture: it is measured there, as the distance of the graph from the FP32
graph. Two sound computations of that precision are each about that far from FP32, so at most twice
that far from one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pointrend_deploy.errors import ParityError
from pointrend_deploy.parity.record.runs import Gate
from pointrend_deploy.pictures.canvas import Fitted

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""A bundle's outputs by name, the batch axis first."""


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        pictures: 1 to N pictures on the canvas, N the bundle's batch; further rows are fillers.
        graph: outputs of the graph in ONNX Runtime.
        engine: outputs of the engine.
        fp32: outputs of the FP32 graph in ONNX Runtime; None where the engine is FP32.
    """

    pictures: Sequence[Fitted]
    graph: Outputs
    engine: Outputs
    fp32: Outputs | None = None


@dataclass(frozen=True)
class EngineComparison:
    """What was found. True in a condition when every gate passed.

    Attributes:
        compared: what was compared, with its number: "24576 labels".
        number: pixels; or detections, of the side that has more.
        agreement: share in 0..1 of them that both sides have.
        mask_iou: mean IoU of the masks that both have; None where there are none.
        gates: the limits, and the values held against them.
        note: what was not compared, and why; empty where all was.
    """

    compared: str
    number: int
    agreement: float
    mask_iou: float | None
    gates: tuple[Gate, ...]
    note: str = ""

    def __bool__(self) -> bool:
        return all(self.gates)

    def line(self) -> str:
        """Say in a few words what was compared and how far it agrees."""
        said = f"{self.agreement:.4%} of {self.compared} agree"
        return said if self.mask_iou is None else f"{said}, masks' IoU {self.mask_iou:.4f}"

    def raise_if_failed(self, engine: str) -> None:
        """Raise ParityError (exit code 3), naming the first gate that failed.

        Args:
            engine: name of the engine, for the message.
        """
        gate = next((each for each in self.gates if not each), None)
        if gate is None:
            return
        value = "nothing" if gate.value is None else f"{gate.value:.6g}"
        raise ParityError(
            f"the engine {engine} ran and does not answer as its graph does in ONNX Runtime: "
            f"{gate.name} is {value}, and the limit is {gate.op} {gate.limit:.6g}",
            "the engine is not recorded; on pictures unlike those of the training near ties may "
            "decide many answers: give one like them with --verify-images PICTURE. If it differs "
            "there too, the builder made something else of the graph: try --ops native, or another "
            "version of TensorRT",
        )


def unfinite(graph: Outputs, engine: Outputs) -> int:
    """Count the engine's values that are not finite where the graph's are all finite."""
    return sum(
        int(array.size - np.isfinite(array).sum())
        for name, array in engine.items()
        if array.dtype.kind == "f" and np.isfinite(graph[name]).all()
    )
