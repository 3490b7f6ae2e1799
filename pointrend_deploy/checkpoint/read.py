"""Read checkpoints (.pkl, .pth, .pt, .safetensors) without running code in them.

The content decides how a file is read, not its name: a ``.pkl`` may hold a plain pickle, as
detectron2's model zoo does, or what ``torch.save`` wrote. Which of its tables is the model's is
decided in ``contents.py``; optimizer, scheduler, iteration and the like are left behind.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointrend_deploy.checkpoint.contents import BESIDE_WEIGHTS, SAVE_AGAIN, Chosen, choose
from pointrend_deploy.checkpoint.pickle.globals import NumpyArray
from pointrend_deploy.checkpoint.pickle.instructions import DamagedError, RefusedError
from pointrend_deploy.checkpoint.pickle.machine import PickleMachine
from pointrend_deploy.checkpoint.torch_files import (
    PLAIN_ADMITTED,
    load_legacy,
    load_zip,
    starts_legacy,
)
from pointrend_deploy.errors import DeployError, path_of

SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors")
"""File names that are read."""

_LARGEST_GROWTH = 4
"""Tensors may take this many times the file's size; tied weights share their bytes."""

_DOWNLOAD_AGAIN = "download or copy the file again and compare its size with the source's"


@dataclass(frozen=True)
class Weights:
    """A set of weights of a checkpoint file.

    Attributes:
        tensors: name to CPU tensor, in the file's order and dtypes, with the file's own names.
        key: where the set stands in the file; empty for the top level.
        others: keys of further sets, which are not in ``tensors``.
        beside: what else the file's top level holds: a configuration, an author and the like.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    key: str = ""
    others: tuple[str, ...] = ()
    beside: Mapping[str, object] = field(default_factory=dict, repr=False)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the usual set of weights of a checkpoint; see :func:`read_weights`."""
    return read_weights(path).tensors


def read_weights(path: str | Path, key: str | None = None) -> Weights:
    """Read a checkpoint's tensors; nothing in the file is executed.

    Args:
        path: a pickle of arrays (detectron2's model zoo; Python 2's too), a file of
            ``torch.save`` (zip or the format before 1.6), or safetensors.
        key: of the set of weights, where the file has several; None for the usual one, see
            :func:`~pointrend_deploy.checkpoint.contents.choose`.

    Returns:
        The set, with the keys of the others. The tensors do not refer to the file.

    Raises:
        DeployError: the file is missing, empty, cut short, of another format, asks for code to be
            run (the message has the name of that code), announces far more data than it has, or has
            no tensors; or it has no weights under ``key``, and the hint lists the keys it has.
    """
    path = path_of(
        path, "the checkpoint", "give the file that training wrote: .pth, .pkl, .safetensors"
    )
    head, size = _look(path)
    try:
        if _is_safetensors(head, size) or (path.suffix == ".safetensors" and head[:2] != b"PK"):
            chosen = choose(_read_safetensors(path), key)
            return Weights(_tensors_of(chosen), chosen.taken.key, chosen.others)
        if head[:2] == b"PK":
            content: object = load_zip(path)
        else:
            content = _read_pickle(path)
        chosen = choose(content, key)
        tensors = _copied(_tensors_of(chosen), size)
        return Weights(tensors, chosen.taken.key, chosen.others, _beside(content))
    except RefusedError as error:
        raise DeployError(
            f"{path} is refused, nothing in it was run: it contains {error.reason}", SAVE_AGAIN
        ) from error
    except DamagedError as error:
        raise DeployError(
            f"{path} cannot be read as a checkpoint: {error}", _DOWNLOAD_AGAIN
        ) from error
    except DeployError as error:
        raise DeployError(f"{path}: {error.message}", error.hint) from error
    except OSError as error:
        raise DeployError(
            f"cannot read the checkpoint {path}: {error.strerror or error}",
            "copy it to a local disk",
        ) from error
    except MemoryError as error:
        raise DeployError(f"{path} does not fit into this machine's memory") from error


def _look(path: Path) -> tuple[bytes, int]:
    """The first bytes and the size; refuses what can be recognised as no checkpoint."""
    known = ", ".join(SUFFIXES)
    try:
        if path.is_dir():
            raise DeployError(
                f"the checkpoint {path} is a folder", f"name the file in it ({known})"
            )
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise DeployError(
            f"cannot read the checkpoint {path}: {error.strerror or error}",
            f"give the path of a {known} file",
        ) from error
    if size == 0:
        raise DeployError(f"the checkpoint {path} is empty", _DOWNLOAD_AGAIN)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise DeployError(
            f"{path} is a web page, not a checkpoint: the download saved a page about the file",
            "download the file itself (a direct link, or curl -L)",
        )
    if head.startswith(b"version https://git-lfs"):
        raise DeployError(
            f"{path} is a Git LFS pointer, not the checkpoint it points to",
            "run `git lfs pull` in that repository",
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"(\xb5/\xfd")):
        raise DeployError(f"{path} is compressed", "decompress it first (gunzip, xz -d, ...)")
    if path.suffix.lower() not in SUFFIXES:
        raise DeployError(
            f"{path}: a checkpoint is a {known} file, not {path.suffix or 'one without a suffix'}",
            "rename the file if it is one of these",
        )
    return head, size


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path, device="cpu")
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"it is not a whole safetensors file ({error})") from error
    if not tensors:
        raise DeployError("it has no tensors", SAVE_AGAIN)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if starts_legacy(data):
        return load_legacy(data)
    return PickleMachine(data, PLAIN_ADMITTED).load()


def _tensors_of(chosen: Chosen) -> dict[str, Any]:
    return {
        str(name): value
        for name, value in chosen.taken.entries.items()
        if isinstance(value, (Tensor, NumpyArray))
    }


def _beside(content: object) -> dict[str, object]:
    return {
        name: value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and name in BESIDE_WEIGHTS
    }


def _copied(named: dict[str, object], file_size: int) -> dict[str, Tensor]:
    """Tensors that own their memory; a tensor that several names share is copied once."""
    total = sum(_nbytes(value) for value in named.values())
    if total > _LARGEST_GROWTH * file_size:
        raise RefusedError(f"tensors of {total} bytes in a file of {file_size}")
    copies: dict[int, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in named.items():
        if id(value) not in copies:
            copies[id(value)] = _tensor(value)
        tensors[name] = copies[id(value)]
    return tensors


def _nbytes(value: object) -> int:
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise RefusedError("a tensor that is sparse, quantised or without data")
        return value.numel() * value.element_size()
    if isinstance(value, NumpyArray) and value.array is not None:
        return value.array.nbytes
    raise DamagedError("an array has no data")


def _tensor(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, NumpyArray) and value.array is not None:
        native = value.array.dtype.newbyteorder("=")
        owned = np.array(value.array, native, order="C", copy=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(owned)
    raise DamagedError("an array has no data")
