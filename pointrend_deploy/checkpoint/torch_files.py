"""Files of ``torch.save``: vetted here, then read by ``torch.load(weights_only=True)``.

``weights_only`` runs no code, but it allocates what a file asks for. So the same pickle is first
run through our own machine (pickle/machine.py) with storages that are only described: every name
must be one a checkpoint needs, every storage as large as its data, every tensor inside its storage.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch

from pointrend_deploy.checkpoint.pickle.globals import (
    ADMITTED,
    BESIDE_TORCH,
    STORAGE_DTYPES,
    StorageRef,
)
from pointrend_deploy.checkpoint.pickle.instructions import DamagedError, RefusedError
from pointrend_deploy.checkpoint.pickle.machine import Callables, Global, PickleMachine
from pointrend_deploy.errors import DeployError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of the format torch wrote before 1.6 (torch/serialization.py)."""

_LARGEST_INDEX = 64 * 2**20
"""Bytes of a zip's data.pkl: names, shapes and strides; a few hundred KiB in practice."""


def load_zip(path: Path) -> object:
    """Read a zip written by ``torch.save``; the tensors are views of the mapped file.

    Raises:
        RefusedError: a name no checkpoint needs, compressed or overlapping members (torch writes
            neither), or tensors larger than their data.
        DamagedError: not a whole torch zip.
    """
    _vet_zip(path)
    return _torch_load(str(path), mmap=True)


def load_legacy(data: memoryview) -> object:
    """Read the format before torch 1.6: five pickles, then the storages one after another.

    Raises:
        RefusedError: as :func:`load_zip`.
        DamagedError: the bytes are not a whole file of that format.
    """
    _vet_legacy(data)
    return _torch_load(io.BufferedReader(_View(data)), mmap=False)


def starts_legacy(data: memoryview) -> bool:
    """Whether the first pickle is the magic number of torch's old format."""
    try:
        return PickleMachine(data[:64], {}).load() == LEGACY_MAGIC
    except (RefusedError, DamagedError):
        return False


def load_from_bytes(payload: object) -> StorageRef:
    """Stands in for ``torch.storage._load_from_bytes``: a tensor's storage in a plain pickle."""
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise RefusedError(f"a torch storage made of a {type(payload).__name__}")
    if not starts_legacy(memoryview(payload)):
        raise RefusedError("a torch storage in a form torch does not write")
    loaded = load_legacy(memoryview(payload))
    if not isinstance(loaded, torch.storage.TypedStorage):
        raise RefusedError("a torch storage that is none")
    untyped = loaded._untyped_storage  # `untyped()` warns that this class will go
    return StorageRef(loaded.dtype, untyped.nbytes() // loaded.dtype.itemsize, untyped)


PLAIN_ADMITTED: Callables = {**ADMITTED, "torch.storage._load_from_bytes": load_from_bytes}
"""What a plain pickle may name: all of a torch file's, and tensors that bring their own bytes."""


class _View(io.RawIOBase):
    """A read-only file over a memoryview, so that a mapped file is not copied."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        piece = self._data[self._at : self._at + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _torch_load(source: str | IO[bytes], mmap: bool) -> object:
    stand_ins: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (call, name) for name, call in BESIDE_TORCH.items()
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # typed storages and the pickle protocol: not ours
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except RefusedError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" not in str(error):
            raise DamagedError(f"torch.load says: {str(error).splitlines()[0][:200]}") from error
        raise DeployError(
            "saved with a pickle protocol that torch reads only by running code",
            'save it again with the default one: torch.save({"model": model.state_dict()}, '
            '"model_final.pth")',
        ) from error
    except Exception as error:  # broken bytes make torch raise anything at all
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"torch.load says: {first_line[:200]}") from error


def _vet_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member.file_size for member in archive.infolist()}
            index = next((name for name in members if name.split("/")[1:] == ["data.pkl"]), None)
            if index is None:
                raise DamagedError("a zip, but not one that torch.save wrote: it has no data.pkl")
            root = index.removesuffix("data.pkl")
            if root + "constants.pkl" in members:
                raise RefusedError("a TorchScript program, not a checkpoint")
            total, size = sum(m.file_size for m in archive.infolist()), path.stat().st_size
            if total > size:
                raise RefusedError(f"members of {total} bytes in a file of {size}")
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise RefusedError(
                        f"a compressed member, {member.filename}, of {member.file_size} bytes "
                        f"in {member.compress_size}; torch.save writes none"
                    )
            if members[index] > _LARGEST_INDEX:
                raise RefusedError(f"a data.pkl of {members[index]} bytes")
            pickle = archive.read(index)
    except (RefusedError, DamagedError):
        raise
    except Exception as error:  # zipfile meets broken bytes with many kinds
        raise DamagedError(f"the zip is not whole: {error}") from error

    def storage(persistent_id: object) -> StorageRef:
        ref, key = _described(persistent_id)
        held = members.get(f"{root}data/{key}")
        if held is None or held != ref.numel * ref.dtype.itemsize:
            raise RefusedError(
                f"storage {key} of {ref.numel} elements of {ref.dtype} with "
                + ("no data" if held is None else f"{held} bytes")
            )
        return ref

    PickleMachine(memoryview(pickle), ADMITTED, storage).load()


def _vet_legacy(data: memoryview) -> None:
    announced: dict[str, int] = {}

    def storage(persistent_id: object) -> StorageRef:
        ref, key = _described(persistent_id)
        announced[key] = max(announced.get(key, 0), ref.numel * ref.dtype.itemsize)
        if sum(announced.values()) > len(data):
            raise RefusedError(f"storages larger than the file's {len(data)} bytes")
        return ref

    position = 0
    for _ in range(5):  # magic number, protocol, system, the object, the storages' keys
        machine = PickleMachine(data, ADMITTED, storage, position)
        machine.load()
        position = machine.position
    if sum(announced.values()) > len(data) - position:
        raise DamagedError("it ends early")


def _described(persistent_id: object) -> tuple[StorageRef, str]:
    if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6):
        raise RefusedError("a persistent id that is no storage")
    kind, label, key, _, numel = persistent_id[:5]
    dtype = STORAGE_DTYPES.get(label.name) if isinstance(label, Global) else None
    if kind != "storage" or dtype is None or not isinstance(key, str):
        raise RefusedError("a persistent id that is no storage of numbers")
    if len(persistent_id) == 6 and persistent_id[5] is not None:
        raise RefusedError("a storage that is a view of another")
    if type(numel) is not int or not 0 <= numel < 2**62:
        raise RefusedError("a storage whose size is no count")
    return StorageRef(dtype, numel), key
