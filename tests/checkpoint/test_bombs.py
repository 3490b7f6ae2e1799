"""No checkpoint takes memory out of proportion to its size."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from tests.checkpoint.test_hostile import as_legacy, as_pickle, as_zip

MEMORY_MIB = 150


def status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.split(field + ":")[1].split()[0]) / 1024


class Peak:
    """Resident memory that was added at the highest moment since it was made (Linux)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status_mib("VmRSS")

    def grown_mib(self) -> float:
        return status_mib("VmHWM") - self.before


@pytest.fixture
def little_memory() -> Iterator[None]:
    try:
        peak = Peak()
    except OSError:
        pytest.skip("the memory high-water mark can be reset on Linux only")
    yield
    assert peak.grown_mib() < MEMORY_MIB


def test_memory_taken_and_given_back_is_seen() -> None:
    try:
        peak = Peak()
    except OSError:
        pytest.skip("the memory high-water mark can be reset on Linux only")
    assert peak.grown_mib() < MEMORY_MIB
    np.ones(2 * MEMORY_MIB * 2**20, np.uint8)
    assert peak.grown_mib() > MEMORY_MIB


def array_pickle(shape: tuple[int, ...], raw: bytes) -> bytes:
    state = (1, shape, np.dtype("f4"), False, raw)
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85S'b'\ntR"
    return head + pickle.dumps(state, protocol=2)[2:-1] + b"b."


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "ends early"),
        (b"\x80\x04\x96" + struct.pack("<Q", 2**33) + b"x.", "ends early"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.", "ends early"),
        (b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x.", "ends early"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.", "no tensors"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "no tensors"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\x01.", "integer"),
        (b"I" + b"9" * 200_000 + b"\n.", "no end"),
        (array_pickle((10**6, 10**6), b"\0" * 400), "400 bytes"),
        (array_pickle((-1, -100), b"\0" * 400), "no counts"),
        (array_pickle((2**31, 2**31, 4, 0), b"\0" * 4), "4 bytes"),
        (b"\x80\x02" + b"}" * 1_100_000, "instructions"),
        (b"\x80\x02)" + b"\x85" * 300_000 + b".", "it is a tuple"),
    ],
    ids=[
        *("binbytes8", "bytearray8", "unicode8", "binbytes", "frame", "memo", "long4", "digits"),
        *("huge array", "negative", "overflow", "dicts", "deep"),
    ],
)
def test_small_pickles_that_would_grow(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(raw)
    with pytest.raises(DeployError, match=message):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_one_array_under_many_names(tmp_path: Path) -> None:
    weight = np.ones(250_000, np.float32)
    path = as_pickle(tmp_path / "m", {f"w{i}": weight for i in range(10_000)})
    with pytest.raises(DeployError, match="tensors of 10000000000 bytes"):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_one_string_unpacked_many_times(tmp_path: Path) -> None:
    raw = (
        b"\x80\x02]c_codecs\nencode\nq\x00X\x40\x42\x0f\x00"
        + b"x" * 1_000_000
        + b"q\x01X\x06\0\0\0"
    )
    raw += b"latin1q\x0200" + b"0(" + b"h\x00h\x01h\x02\x86R" * 2000 + b"l."
    path = tmp_path / "m.pkl"
    path.write_bytes(raw)
    with pytest.raises(DeployError, match="again and again"):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(256):
                member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(DeployError, match="members of 268435462 bytes"):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_zip_whose_members_overlap(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(2**20))
        for _ in range(100):
            archive.filelist.append(archive.filelist[-1])
    with pytest.raises(DeployError, match="in a file of"):
        read_checkpoint(path)


class Rebuilt:
    """Pickles as a tensor of any size and stride over a storage of 4 floats."""

    def __init__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        ones: Any = torch.ones(4)
        self.storage = ones.storage()
        self.where = (offset, size, stride)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return torch._utils._rebuild_tensor_v2, (self.storage, *self.where, False, {})


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("write", [as_pickle, as_zip, as_legacy])
@pytest.mark.parametrize(
    "where",
    [
        (0, (10**9,), (1,)),
        (0, (10**5, 10**5), (0, 0)),
        (3, (2,), (1,)),
        (0, (2,), (10**12,)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_tensors_outside_their_storage(tmp_path: Path, write: Any, where: Any) -> None:
    with pytest.raises(DeployError, match="is refused"):
        read_checkpoint(write(tmp_path / "m", {"model": {"w": Rebuilt(*where)}}))
    good = read_checkpoint(write(tmp_path / "m", {"model": {"w": Rebuilt(0, (2,), (2,))}}))
    assert torch.equal(good["w"], torch.ones(2))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("zipped", [True, False])
def test_storages_that_announce_more_than_they_hold(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pth"
    torch.save({"w": torch.ones(70_000)}, path, _use_new_zipfile_serialization=zipped)
    numel = b"J" + struct.pack("<i", 70_000)
    whole = path.read_bytes()
    assert numel in whole
    lie = b"J" + struct.pack("<i", 2_000_000_000)
    if zipped:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content.replace(numel, lie))
    else:
        path.write_bytes(whole.replace(numel, lie))
    with pytest.raises(DeployError, match="storage"):
        read_checkpoint(path)
