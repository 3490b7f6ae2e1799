"""Nothing in a checkpoint is run, and none takes memory out of proportion to its size."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointrend_deploy.errors import DeployError
from pointrend_deploy.model.checkpoint import read_checkpoint

MEMORY_MIB = 150


@pytest.fixture
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEMORY_MIB, f"{grown:.0f} MiB"


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.function, self.arguments


def touch(target: Path) -> str:
    return f"touch {target}"


def as_pickle(path: Path, content: object) -> Path:
    path = path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(content))
    return path


def as_old_pickle(path: Path, content: object) -> Path:
    path = path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(content, protocol=0))
    return path


def as_zip(path: Path, content: object) -> Path:
    torch.save(content, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_legacy(path: Path, content: object) -> Path:
    torch.save(content, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


@pytest.mark.parametrize("write", [as_pickle, as_old_pickle, as_zip, as_legacy])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), r"posix\.system|nt\.system"),
        (eval, ("__import__('os').system('touch {}')",), r"(builtins|__builtin__)\.eval"),
        (exec, ("import os; os.system('touch {}')",), r"(builtins|__builtin__)\.exec"),
        (io.open, ("{}", "w"), r"io\.open"),
        (getattr, (os, "system"), r"(builtins|__builtin__)\.getattr"),
        (np.save, ("{}", 0), r"numpy\.save"),
        (torch.load, ("{}",), r"torch\.serialization\.load"),
    ],
    ids=["system", "eval", "exec", "open", "getattr", "numpy", "torch"],
)
def test_code_is_not_run(
    tmp_path: Path, write: Any, function: Any, arguments: tuple[Any, ...], name: str
) -> None:
    mark = tmp_path / "it_was_run"
    filled = [a.format(mark) if isinstance(a, str) else "os" for a in arguments]
    path = write(tmp_path / "m", {"model": {"w": Calls(function, *filled)}, "__author__": "x"})
    with pytest.raises(DeployError, match=name) as caught:
        read_checkpoint(path)
    assert "nothing in it was run" in caught.value.message
    assert "state_dict" in caught.value.hint
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_file_does_run_in_an_ordinary_unpickler(tmp_path: Path) -> None:
    mark = tmp_path / "it_was_run"
    path = as_pickle(tmp_path / "m", {"w": Calls(os.system, touch(mark))})
    with pytest.raises(DeployError, match="system"):
        read_checkpoint(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"(S'touch {}'\nios\nsystem\n.", r"os\.system"),
        (b"cos\nsystem\n(S'touch {}'\ntR.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", r"os\.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10core.multiarray.\x93.", r"numpy\.core\.multiarray\."),
        (b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n}tR.", "runstring"),
        (b"cnumpy.f2py.crackfortran\nmyeval\n(S'x'\ntR.", "myeval"),
        (b"ctorch.hub\nload\n(S'x'\ntR.", r"torch\.hub\.load"),
        (b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.", "torch storage"),
        (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", r"builtins\.bytearray"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02X\x01\x00\x00\x00xQ.", "BINPERSID"),
        (b"P1\n.", "PERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R.", r"torch\.FloatStorage"),
        (b"\x80\x02}K\x01\x85R.", "a call of dict"),
        (b"\x80\x02]K\x01b.", "the state of list"),
        (b"\x80\x02}))s.", "dict key of type tuple"),
    ],
)
def test_hand_written_pickles(tmp_path: Path, raw: bytes, name: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(raw.replace(b"{}", str(tmp_path / "it_was_run").encode()))
    with pytest.raises(DeployError, match=name):
        read_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]


def test_code_inside_a_tensor_inside_a_pickle(tmp_path: Path) -> None:
    inner = io.BytesIO()
    mark = tmp_path / "it_was_run"
    torch.save(Calls(os.system, touch(mark)), inner, _use_new_zipfile_serialization=False)
    load = torch.storage._load_from_bytes
    path = as_pickle(tmp_path / "m", {"w": Calls(load, inner.getvalue())})
    with pytest.raises(DeployError, match="system"):
        read_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [as_pickle, as_old_pickle, as_zip])
@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([1, "a", None], dtype=object), "Python objects"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]), "numpy dtype"),
        (np.array(["text"]), "numpy dtype"),
        (np.zeros(2, np.complex64), "numpy dtype"),
    ],
    ids=["object", "structured", "text", "complex"],
)
def test_other_arrays_are_refused(tmp_path: Path, write: Any, array: Any, what: str) -> None:
    with pytest.raises(DeployError, match=what):
        read_checkpoint(write(tmp_path / "m", {"model": {"w": array}}))


def dtype_with_state(state: tuple[object, ...]) -> bytes:
    """A pickled numpy.dtype("f4") whose state is ``state``."""
    inner = pickle.dumps(state, protocol=2)[2:-1]
    return b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR" + inner + b"b"


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, None, None, -1, -1),
        (3, "<", None, ("a",), {"a": 1}, 8, 1, 63),
        (3, "x", None, None, None, -1, -1, 0),
        7,
    ],
)
def test_crafted_dtype_states(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x02" + dtype_with_state(state) + b".")
    with pytest.raises(DeployError, match="dtype"):
        read_checkpoint(path)


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
        (b"\x80\x02)" + b"\x85" * 300_000 + b".", "holds a tuple"),
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
