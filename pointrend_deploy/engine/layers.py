"""The layers of a built engine: what each reads and writes, and the ONNX nodes fused into it.

Two sources give the same table: TensorRT-RTX's verbose message that begins ``Layers:``, which needs
no GPU, and the JSON of full TensorRT's engine inspector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from pointrend_deploy.errors import DeployError

LAYERS_BEGIN: Final = "Layers:"
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<tactic>[^,]*),.*?Metadata: (?P<metadata>.*)"
)
_TENSOR = re.compile(r"Name: (\S*), Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")
_NUMBER = re.compile(r"\d+$")
_PRODUCT = re.compile(
    r"conv(?!er)|correlation|gemm|matmul|matrixmultiply|fullyconnected", re.IGNORECASE
)
_TYPES: Final = {
    "bfloat16": ("BFloat16", "BF16"),
    "float16": ("Half", "FP16"),
    "float32": ("Float", "FP32"),
    "int8": ("Int8", "INT8"),
    "int32": ("Int32", "INT32"),
    "int64": ("Int64", "INT64"),
    "uint8": ("UInt8", "UINT8"),
    "bool": ("Bool", "BOOL"),
}


class Operand(msgspec.Struct, frozen=True, array_like=True):
    """A tensor that a layer reads or writes.

    Attributes:
        type: float32, float16, int8 and the like; the builder's own word for any other type.
        shape: as the layer sees it, -1 where it is dynamic; empty where the source does not say.
        name: the builder's name of the tensor, which every layer that reads or writes it has; empty
            where the source does not say. Layers may see one tensor in different shapes.
    """

    type: str
    shape: tuple[int, ...] = ()
    name: str = ""

    @property
    def matrix(self) -> bool:
        """Whether at least two of its dimensions are not one: no scale and no bias."""
        return sum(size != 1 for size in self.shape) > 1


class Layer(msgspec.Struct, frozen=True):
    """A layer of the engine.

    Attributes:
        name: the builder's.
        kind: the builder's word for what it is: correlation (a convolution), gemm, kgen,
            runtime_fusion, custom_layer (a plugin), CaskConvolution and the like.
        inputs: what it reads; of a product of matrices the activation comes first.
        constants: its own constants; of a product of matrices the weights come first.
        outputs: what it writes.
        nodes: the ONNX nodes that were fused into it.
        tactic: the kernel's name, where it is known before the GPU is.
    """

    name: str
    kind: str
    inputs: tuple[Operand, ...]
    constants: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    nodes: tuple[str, ...]
    tactic: str = ""

    @property
    def product(self) -> bool:
        """Whether it is a product of matrices or a convolution, with whatever follows in place."""
        return _PRODUCT.search(self.kind) is not None

    @property
    def weights(self) -> Operand | None:
        """The weights of a product: its first constant, or where that is a scalar its second input.

        The scalars are the factors of the product and of what is added to it.
        """
        first = self.constants[0] if self.constants else None
        if first is not None and any(size != 1 for size in first.shape):
            return first
        return self.inputs[1] if len(self.inputs) > 1 else first


class LayerTable(msgspec.Struct, frozen=True):
    """The entry of one engine in ``layers.json``.

    Attributes:
        kinds: number of layers by kind.
        weighted: type in which each node that multiplies matrices computes, nodes with weights
            among them; see precision_check.
        layers: all of them, in order.
    """

    kinds: dict[str, int]
    weighted: dict[str, str]
    layers: tuple[Layer, ...]


def read_layers(text: str) -> tuple[Layer, ...]:
    """Read the layers from either source.

    Raises:
        DeployError: the text has neither form, or no layer.
    """
    layers = _from_log(text) if text.startswith(LAYERS_BEGIN) else _from_inspector(text)
    if not layers:
        raise DeployError(
            "the builder's table of layers cannot be read", "this version of it is not known"
        )
    return layers


def encode_tables(tables: Mapping[str, LayerTable]) -> bytes:
    """``layers.json``: the table of each engine by its file, one layer a line."""
    parts = []
    for name, table in tables.items():
        layers = b",\n   ".join(map(msgspec.json.encode, table.layers))
        summary = [
            b'"%s": %s' % (key.encode(), msgspec.json.encode(value))
            for key, value in (("kinds", table.kinds), ("weighted", table.weighted))
        ]
        fields = b",\n  ".join([*summary, b'"layers": [\n   %s\n  ]' % layers])
        parts.append(b" %s: {\n  %s\n }" % (msgspec.json.encode(name), fields))
    return b"{\n%s\n}\n" % b",\n".join(parts)


def _from_log(text: str) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for line in text.splitlines()[1:]:
        if not line.startswith("Name: "):
            if layers and not line.strip():
                break
            continue
        match = _LINE.match(line)
        if match is None:
            raise DeployError(f"the builder's table of layers has a line not known: {line[:200]}")
        layers.append(
            Layer(
                match["name"],
                match["kind"],
                _operands(match["inputs"]),
                _operands(match["constants"] or ""),
                _operands(match["outputs"]),
                tuple(_NODE.findall(match["metadata"])),
                match["tactic"],
            )
        )
    return tuple(layers)


def _operands(tensors: str) -> tuple[Operand, ...]:
    return tuple(
        Operand(_type(kind), tuple(map(_size, filter(None, sizes.split(",")))), name)
        for name, sizes, kind in _TENSOR.findall(tensors)
    )


def _size(word: str) -> int:
    return int(word) if _NUMBER.match(word.strip()) else -1


def _from_inspector(text: str) -> tuple[Layer, ...]:
    try:
        table = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DeployError(f"the engine inspector's answer is not JSON: {error}") from error
    found = table.get("Layers", []) if isinstance(table, dict) else []
    return tuple(_layer_of(entry) for entry in found if isinstance(entry, dict))


def _layer_of(entry: Mapping[str, Any]) -> Layer:
    def operands(key: str) -> Iterator[Operand]:
        for tensor in entry.get(key) or ():
            if isinstance(tensor, dict):
                sizes = [size for size in tensor.get("Dimensions") or () if isinstance(size, int)]
                kind = tensor.get("Datatype") or tensor.get("Format/Datatype") or "?"
                yield Operand(_type(str(kind)), tuple(sizes), str(tensor.get("Name", "")))

    constants = tuple(operands("Constants"))
    weights = entry.get("Weights")
    if isinstance(weights, dict) and "Type" in weights:  # of a convolution, by its size alone
        constants = (Operand(_type(str(weights["Type"])), (weights.get("Count", -1),)), *constants)
    return Layer(
        str(entry.get("Name", "?")),
        str(entry.get("LayerType", "?")),
        tuple(operands("Inputs")),
        constants,
        tuple(operands("Outputs")),
        tuple(_NODE.findall(str(entry.get("Metadata", "")))),
        str(entry.get("TacticName", "")),
    )


def _type(words: str) -> str:
    """``Half``, or ``Row major linear FP16 format`` -> float16; a word not known stays."""
    for name, spellings in _TYPES.items():
        if any(re.search(rf"\b{word}\b", words) for word in spellings):
            return name
    return words
