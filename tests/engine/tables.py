"""Tables of layers as builders write them, a few layers each."""

from __future__ import annotations


def tensor(kind: str, shape: str = "1,64,8,8") -> str:
    """One operand as TensorRT-RTX writes it."""
    return (
        f"{{ Name: x_myl0, Dimensions: [{shape}], Strides: [524288,1,2048,4], StrideOrder: "
        f"[3,0,2,1], Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


def tensors(words: str) -> str:
    """Operands from words such as ``Int8[1,64,8,8] Float[1]``."""
    parts = [word.rstrip("]").split("[") for word in words.split()]
    return ", ".join(tensor(kind, shape) for kind, shape in parts)


def line(
    kind: str,
    inputs: str,
    constants: str,
    outputs: str,
    nodes: str,
    name: str = "",
    tactic: str = "",
) -> str:
    """One layer as TensorRT-RTX writes it.

    Args:
        kind: its LayerType.
        inputs: see :func:`tensors`; ``constants`` and ``outputs`` too.
        nodes: ONNX nodes in it, separated by blanks.
        name: of the layer; the first node's unless given.
        tactic: name of its kernel.
    """
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes.split())
    return (
        f"Name: {name or nodes.split()[0]}_myl0_1, LayerType: {kind}, Inputs: [ {tensors(inputs)}"
        f"], Constants: [ {tensors(constants)}], Outputs: [ {tensors(outputs)}], TacticName: "
        f"{tactic}, StreamId: 0, Metadata: {metadata}"
    )


LOG = f"""Layers:
Name: __myl_Move_myl0_0, LayerType: kgen, Inputs: [ {tensor("Float")}], Constants: [], Outputs: [ \
{tensor("Int8")}], TacticName: __myl_Move_0xfc, StreamId: 0, Metadata: [ONNX Layer: conv1.q]\
[ONNX Layer: conv1]
Name: conv1_myl0_1, LayerType: correlation, Inputs: [ {tensor("Int8")}], Constants: [ \
{tensor("Int8", "32,64,3,3")}, {tensor("Float", "1,32,1,1")}, {tensor("Float", "1,32,1,1")}], \
Outputs: [ {tensor("Half", "1,32,8,8")}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: \
[ONNX Layer: conv1][ONNX Layer: conv1.dq]
Name: __myl_Fuse_2, LayerType: runtime_fusion, Inputs: [ {tensor("Half")}, {tensor("Half")}], \
Constants: [], Outputs: [ {tensor("Float")}], TacticName: , StreamId: 0, Metadata: \
[ONNX Layer: conv2][ONNX Layer: relu]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [1,3,256,512]
"""
"""One INT8 convolution between two kernels; the second is a FP16 one of several operations."""
