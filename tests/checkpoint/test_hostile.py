"""Nothing in a checkpoint is run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError


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
