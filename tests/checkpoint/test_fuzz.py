"""Whatever bytes a checkpoint consists of, reading it gives tensors or a DeployError."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError
from tests.checkpoint.test_read import (
    ARRAYS,
    torch_tensors,
    whole_legacy,
    whole_safetensors,
    whole_zip,
)

WHOLE = {
    "pickle2.pkl": pickle.dumps({"model": ARRAYS, "__author__": "x"}, protocol=2),
    "pickle4.pkl": pickle.dumps({"model": ARRAYS, "__author__": "x"}, protocol=4),
    "pickle5.pkl": pickle.dumps({"model": ARRAYS, "__author__": "x"}, protocol=5),
    "nested.pkl": pickle.dumps({"model": torch_tensors()}, protocol=4),
    "zip.pth": whole_zip(),
    "legacy.pth": whole_legacy(),
    "plain.safetensors": whole_safetensors(),
}
FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Edit = tuple[float, bytes, int]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=9), st.integers(0, 9)), min_size=1, max_size=4
)


def edited(whole: bytes, changes: list[Edit]) -> bytes:
    """``whole`` with, at each place, some bytes taken out and others put in."""
    for place, inserted, removed in changes:
        at = int(place * len(whole))
        whole = whole[:at] + inserted + whole[at + removed :]
    return whole


def read_or_refuse(path: Path) -> bool:
    try:
        found = read_checkpoint(path)
    except DeployError as error:
        assert str(path) in error.message
        return False
    assert found
    assert all(isinstance(value, torch.Tensor) for value in found.values())
    return True


@pytest.mark.parametrize("name", list(WHOLE))
@given(changes=edits)
@FEW
def test_edited_files(tmp_path: Path, name: str, changes: list[Edit]) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    assert read_or_refuse(path)
    path.write_bytes(edited(WHOLE[name], changes))
    read_or_refuse(path)


INSTRUCTIONS = sorted(instruction.code.encode("latin-1") for instruction in pickletools.opcodes)
NAMES = [
    b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"cnumpy._core.numeric\n_frombuffer\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n",
    b"ccollections\nOrderedDict\n",
    b"c_codecs\nencode\n",
    b"cos\nsystem\n",
    b"U\x02f4",
    b"U\x01w",
    b"C\x04abcd",
    b"K\x03",
]


@given(pieces=st.lists(st.sampled_from(INSTRUCTIONS + NAMES) | st.binary(max_size=5), max_size=40))
@settings(FEW, max_examples=250)
def test_random_instructions(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x04}" + b"".join(pieces) + b".")
    read_or_refuse(path)
