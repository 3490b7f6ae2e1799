"""The forms a bundle comes in, each as the words that a user and a manifest write.

Nothing is imported here, so that the command line can offer these choices before anything else is
loaded.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
"""Type of the numbers a graph or an engine computes with."""
Ops = Literal["plugin", "native"]
"""Custom nodes that TensorRT plugins compute, or standard ONNX nodes alone."""
PreprocessPlace = Literal["outside", "in-graph"]
"""Where pixels are normalised: before the graph, or by the graph's first nodes."""
MaskForm = Literal["prob", "prob-u8", "logits"]
"""Masks of an instance bundle: float32 probabilities, those times 255 in uint8, or logits."""
Layout = Literal["single", "split"]
"""An instance bundle in one graph, or a detector and a mask graph apart."""
RunnerName = Literal["auto", "onnx", "torch", "tensorrt"]
"""The programs that run a bundle; ``auto`` takes an engine that fits, or one that is installed."""
