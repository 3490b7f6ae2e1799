"""What a checkpoint's pickle may name, and the harmless functions called in those names' place.

None of numpy's or torch's own reconstruction functions is called by the pickle machine: a crafted
``numpy.dtype`` state, an object array or a tensor larger than its storage is refused by these
stand-ins before any memory is touched. Dicts of plain Python stand in for ordered dicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from pointrend_deploy.checkpoint.pickle.instructions import RefusedError
from pointrend_deploy.checkpoint.pickle.machine import Buildable, Callables, plain_key

_PLAIN_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
"""torch's storage types, as pickles name them."""


class NumpyDtype(Buildable):
    """Stands in for ``numpy.dtype``: booleans, integers and floats only."""

    def __init__(self, code: object = "", align: object = False, copy: object = True) -> None:
        name = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(name, str) or name.lstrip("<>|=") not in _PLAIN_DTYPES:
            kind = "an array of Python objects" if str(name)[:1] == "O" else "an array"
            raise RefusedError(f"{kind} of numpy dtype {str(name)[:40]!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 8:
            raise RefusedError("a numpy dtype with a state of another form")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise RefusedError("a structured numpy dtype")
        self.dtype = np.dtype(order + self.dtype.str[1:])


class NumpyArray(Buildable):
    """Stands in for ``numpy.ndarray``.

    Attributes:
        array: None until its state has come; then read-only, in the byte order of the file.
    """

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array: np.ndarray | None = array

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise RefusedError("a numpy array with a state of another form")
        shape, dtype, fortran, raw = state[-4:]
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: object, dtype: object, shape: object, order: str) -> np.ndarray:
    if not isinstance(dtype, NumpyDtype):
        raise RefusedError(f"a numpy array whose dtype is a {type(dtype).__name__}")
    if isinstance(raw, list):
        raise RefusedError("an array of Python objects")
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise RefusedError(f"a numpy array whose data is a {type(raw).__name__}")
    sizes = _sizes(shape)
    nbytes = math.prod(sizes) * dtype.dtype.itemsize
    if nbytes != len(data):
        raise RefusedError(f"an array of shape {sizes} ({nbytes} bytes) with {len(data)} bytes")
    flat = np.frombuffer(data, dtype.dtype)
    return flat.reshape(sizes, order="F" if order == "F" else "C")


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or len(shape) > 32:
        raise RefusedError("a shape that is no tuple of up to 32 sizes")
    if not all(type(size) is int and 0 <= size < 2**62 for size in shape):
        raise RefusedError("a shape with sizes that are no counts")
    return tuple(shape)


def _reconstruct(subtype: object, shape: object, code: object) -> NumpyArray:
    return NumpyArray()


def _scalar(dtype: object, raw: object = b"") -> NumpyArray:
    return NumpyArray(_array(raw, dtype, (), "C"))


def _frombuffer(
    raw: object, dtype: object, shape: object, order: object, axis: object = None
) -> NumpyArray:
    if axis is not None:
        raise RefusedError("a numpy array in a permuted order")
    return NumpyArray(_array(raw, dtype, shape, "F" if order == "F" else "C"))


def _encode(text: object, encoding: object = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"`_codecs.encode` with the encoding {str(encoding)[:40]!r}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _dict(items: object = ()) -> dict[object, object]:
    if isinstance(items, dict):
        return items
    if not isinstance(items, (list, tuple)):
        raise RefusedError(f"a dict made of a {type(items).__name__}")
    return {plain_key(key): value for key, value in items}


class StorageRef:
    """A torch storage named in a pickle.

    Attributes:
        dtype: element type.
        numel: elements.
        storage: its bytes, or None while a file is only being vetted.
    """

    def __init__(
        self, dtype: torch.dtype, numel: int, storage: torch.UntypedStorage | None = None
    ) -> None:
        self.dtype, self.numel, self.storage = dtype, numel, storage


def _rebuild_tensor(
    ref: object, offset: object, size: object, stride: object, *others: object
) -> object:
    if not isinstance(ref, StorageRef) or type(offset) is not int or offset < 0:
        raise RefusedError("a tensor without a storage")
    sizes, strides = _sizes(size), _sizes(stride)
    if len(sizes) != len(strides):
        raise RefusedError("a tensor with as many strides as it has no sizes")
    count = math.prod(sizes)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if count and (count > ref.numel or last >= ref.numel):
        raise RefusedError(f"a tensor of shape {sizes} over a storage of {ref.numel} elements")
    if ref.storage is None:
        return None
    return torch.empty(0, dtype=ref.dtype).set_(ref.storage, offset, sizes, strides)


def _rebuild_parameter(data: object, *others: object) -> object:
    return data


def _size(values: object = ()) -> tuple[int, ...]:
    return _sizes(values)


def _device(*values: object) -> object:
    return None


BESIDE_TORCH: dict[str, Callable[..., object]] = {
    "builtins.bytes": _no_bytes,  # how old protocols write b""
    "numpy.dtype": NumpyDtype,
    "numpy.ndarray": NumpyArray,
    **{
        f"numpy.{core}.{name}": call
        for core in ("core", "_core")  # numpy 1 and numpy 2
        for name, call in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _frombuffer),
        )
    },
}
"""numpy's part; also given to ``torch.load``, which then calls none of numpy's own functions."""

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")

ADMITTED: Callables = {
    **BESIDE_TORCH,
    "__builtin__.bytes": _no_bytes,
    **dict.fromkeys(STORAGE_DTYPES),
    **dict.fromkeys(f"torch.{name}" for name in (*_DTYPES, "bool")),
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _size,
    "torch.device": _device,
}
"""Every name that a checkpoint's pickle may contain."""
