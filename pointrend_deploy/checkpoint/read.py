"""Read checkpoints (.pkl, .pth, .pt, .safetensors) without running code in them.

The content decides how a file is read, not its name: a ``.pkl`` may hold a plain pickle, as
detectron2's model zoo does, or what ``torch.save`` wrote. Wrappers such as ``{"model": ...}`` are
opened; optimizer, scheduler, iteration and the like are left behind.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pointrend_deploy.checkpoint.pickle.globals import NumpyArray
from pointrend_deploy.checkpoint.pickle.instructions import DamagedError, RefusedError
from pointrend_deploy.checkpoint.pickle.machine import PickleMachine
from pointrend_deploy.checkpoint.torch_files import (
    PLAIN_ADMITTED,
    load_legacy,
    load_zip,
    starts_legacy,
)
from pointrend_deploy.errors import DeployError

SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors")
"""File names that are read."""

_WRAPPERS = ("model", "state_dict")
_BESIDE_WEIGHTS = {
    *("__author__", "author", "matching_heuristics", "iteration", "epoch", "step", "meta"),
    *("optimizer", "lr_scheduler", "scheduler", "trainer", "hooks", "grad_scaler", "scaler", "cfg"),
}
_LARGEST_GROWTH = 4
"""Tensors may take this many times the file's size; tied weights share their bytes."""

_SAVE_AGAIN = (
    "save the weights alone where the model was trained: "
    'torch.save({"model": model.state_dict()}, "model_final.pth")'
)
_DOWNLOAD_AGAIN = "download or copy the file again and compare its size with the source's"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors; nothing in the file is executed.

    Args:
        path: a pickle of arrays (detectron2's model zoo; Python 2's too), a file of
            ``torch.save`` (zip or the format before 1.6), or safetensors.

    Returns:
        Name to CPU tensor, in the file's order and dtypes, with the file's own names. They do not
        refer to the file.

    Raises:
        DeployError: the file is missing, empty, cut short, of another format, asks for code to be
            run (the message has the name of that code), announces far more data than it has, or has
            no tensors.
    """
    path = Path(path)
    head, size = _look(path)
    try:
        if _is_safetensors(head, size) or (path.suffix == ".safetensors" and head[:2] != b"PK"):
            return _read_safetensors(path)
        if head[:2] == b"PK":
            content: object = load_zip(path)
        else:
            content = _read_pickle(path)
        return _copied(_named_values(content), size)
    except RefusedError as error:
        raise DeployError(
            f"{path} is refused, nothing in it was run: it contains {error.reason}", _SAVE_AGAIN
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
        raise DeployError("it has no tensors", _SAVE_AGAIN)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if starts_legacy(data):
        return load_legacy(data)
    return PickleMachine(data, PLAIN_ADMITTED).load()


def _named_values(content: object) -> dict[str, object]:
    """Open the wrappers and keep what has a name and is a tensor or an array."""
    for _ in range(8):
        inner = [content[key] for key in _WRAPPERS if isinstance(content, dict) and key in content]
        if not inner or not isinstance(inner[0], Mapping):
            break
        content = dict(inner[0])
    if not isinstance(content, Mapping):
        raise DeployError(f"it is a {type(content).__name__}, not named weights", _SAVE_AGAIN)
    _refuse_caffe2(content)
    named: dict[str, object] = {}
    for name, value in content.items():
        if isinstance(value, (Tensor, NumpyArray)) and isinstance(name, str):
            named[name] = value
        elif name not in _BESIDE_WEIGHTS:
            raise DeployError(
                f"its entry {str(name)[:80]!r} is a {type(value).__name__}, not a tensor",
                _SAVE_AGAIN,
            )
    if not named:
        raise DeployError("it has no tensors", _SAVE_AGAIN)
    return named


def _refuse_caffe2(content: Mapping[object, object]) -> None:
    caffe2_stem = "conv1_w" in content and "res2_0_branch2a_w" in content
    if "blobs" in content or caffe2_stem:
        raise DeployError(
            "it is a Caffe2 pickle (Detectron 1, or an ImageNet backbone such as R-50.pkl), which "
            "training starts from: it has no detectron2 segmentation model in it",
            "give the file that detectron2's training wrote, model_final.pth or model_final.pkl",
        )


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
