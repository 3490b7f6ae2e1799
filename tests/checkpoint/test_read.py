"""Checkpoints of every form are read to the same tensors, and what is no checkpoint says so."""

from __future__ import annotations

import gzip
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pointrend_deploy.checkpoint.read import read_checkpoint
from pointrend_deploy.errors import DeployError

ARRAYS: dict[str, Any] = {
    "square": np.arange(900, dtype=np.float32).reshape(30, 30) / 7,
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">f4"),
    "half": np.linspace(0, 1, 7, dtype=np.float16),
    "strided": np.arange(24.0, dtype=np.float32).reshape(4, 6)[::2, ::3],
    "scalar": np.float32(3.5),
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
}


def torch_tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(100.0).reshape(10, 10)
    return {
        "square": torch.randn(20, 30),
        "view": base[2:5, ::3],
        "transposed": base.T,
        "half": torch.randn(4).half(),
        "bfloat": torch.randn(4).bfloat16(),
        "double": torch.randn(4, dtype=torch.float64),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }


def write_pickle(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value.detach()), name
        else:
            assert found[name].shape == np.shape(value), name
            assert np.array_equal(found[name].numpy(), value), name
        assert found[name].is_contiguous()
        assert not found[name].requires_grad


@pytest.mark.parametrize("protocol", range(6))
def test_model_zoo_pickle(tmp_path: Path, protocol: int) -> None:
    content = {"model": ARRAYS, "__author__": "somebody", "matching_heuristics": True}
    assert_same(read_checkpoint(write_pickle(tmp_path / "m.pkl", content, protocol)), ARRAYS)


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpy_1_and_2_names(tmp_path: Path, core: str) -> None:
    raw = pickle.dumps({"model": ARRAYS}, protocol=2)
    here = np.core.__name__ if not hasattr(np, "_core") else "numpy._core"
    swapped = raw.replace(f"c{here}.".encode(), f"c{core}.".encode())
    path = tmp_path / "m.pkl"
    path.write_bytes(swapped)
    assert f"c{core}.multiarray".encode() in swapped
    assert_same(read_checkpoint(path), ARRAYS)


def python2_pickle(raw: bytes) -> bytes:
    """{"model": {"w": float32 array}} as Python 2 with numpy 1 writes it: all strings are bytes."""
    small = b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b""
    data = small or b"T" + len(raw).to_bytes(4, "little") + raw
    return (
        b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01wq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04"
        b"cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06(K\x01K"
        + bytes([len(raw) // 4])
        + b"\x85cnumpy\ndtype\nq\x07U\x02f4K\x00K\x01\x87Rq\x08(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89" + data + b"tbssU\n__author__U\x02meu."[:-2] + b"s."
    )


@pytest.mark.parametrize("count", [3, 100])
def test_python_2_pickle(tmp_path: Path, count: int) -> None:
    values = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    raw = python2_pickle(values.tobytes())
    known = pickle.loads(raw, encoding="latin1")
    assert np.array_equal(known["model"]["w"], values)
    path = tmp_path / "m.pkl"
    path.write_bytes(raw)
    assert_same(read_checkpoint(path), {"w": values})


def test_python_2_text_pickle(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    data = "".join(f"\\x{byte:02x}" for byte in values.tobytes())
    raw = (
        "(dS'w'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        "(I1\n(I4\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        f"S'{data}'\ntbs."
    )
    path = tmp_path / "m.pkl"
    path.write_text(raw, newline="\n")
    assert_same(read_checkpoint(path), {"w": values})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl"])
def test_training_checkpoint(tmp_path: Path, zipped: bool, suffix: str) -> None:
    layer = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    tensors = torch_tensors()
    content = {
        "model": OrderedDict(tensors),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "trainer": {"best": np.float64(3.5), "history": np.ones(300)},
        "iteration": 89999,
    }
    path = tmp_path / f"model_final{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_checkpoint(path), tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_with_versions(tmp_path: Path, zipped: bool) -> None:
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    assert hasattr(state, "_metadata")
    path = tmp_path / "m.pth"
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_checkpoint(path), dict(state))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_torch_tensors_in_a_plain_pickle(tmp_path: Path, protocol: int) -> None:
    tensors = torch_tensors()
    path = write_pickle(tmp_path / "m.pkl", {"model": tensors}, protocol)
    assert_same(read_checkpoint(path), tensors)


def test_arrays_in_a_torch_file(tmp_path: Path) -> None:
    torch.save({"model": ARRAYS}, tmp_path / "m.pth")
    assert_same(read_checkpoint(tmp_path / "m.pth"), ARRAYS)


def test_safetensors(tmp_path: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in torch_tensors().items()}
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors")
    found = read_checkpoint(tmp_path / "m.safetensors")
    assert_same({name: found[name] for name in tensors}, tensors)


def test_shared_tensors_stay_one(tmp_path: Path) -> None:
    weight = np.ones((100, 100), np.float32)
    found = read_checkpoint(write_pickle(tmp_path / "m.pkl", {"a": weight, "b": weight}))
    assert found["a"] is found["b"]


def test_the_tensors_do_not_need_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"model": {"w": torch.ones(10_000)}}, path)
    found = read_checkpoint(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(found["w"], torch.ones(10_000))


def whole_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": torch_tensors()}, buffer)
    return buffer.getvalue()


def whole_legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": torch_tensors()}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def whole_safetensors() -> bytes:
    return safetensors.torch.save({"w": torch.ones(100)})


@pytest.mark.parametrize(
    ("suffix", "whole"),
    [
        (".pkl", pickle.dumps({"model": ARRAYS})),
        (".pth", whole_zip()),
        (".pth", whole_legacy()),
        (".safetensors", whole_safetensors()),
    ],
    ids=["pickle", "zip", "legacy", "safetensors"],
)
@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.999])
def test_truncated(tmp_path: Path, suffix: str, whole: bytes, part: float) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(whole)
    read_checkpoint(path)
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DeployError, match=str(path)) as caught:
        read_checkpoint(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pkl", b"", "is empty"),
        ("m.pkl", b"<!DOCTYPE html><html>", "web page"),
        ("m.pth", b"\n <html><body>404", "web page"),
        ("m.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("m.pkl.gz", gzip.compress(b"x", mtime=0), "compressed"),
        ("m.pkl", gzip.compress(b"x", mtime=0), "compressed"),
        ("m.onnx", b"\x08\x08", r"not \.onnx"),
        ("m", b"\x80\x02}.", "without a suffix"),
        ("m.pkl", b"just some text", "cannot be read"),
        ("m.pth", b"PK\x03\x04 and nothing more", "zip is not whole"),
        ("m.safetensors", b"\xff" * 100, "safetensors"),
        ("m.pkl", pickle.dumps({}), "no tensors"),
        ("m.pkl", pickle.dumps([1, 2]), "it is a list"),
        ("m.pkl", pickle.dumps({"model": {"w": "text"}}), "'w' is a str"),
        ("m.pkl", pickle.dumps({"model": {3: ARRAYS["square"]}}), "'3'"),
        ("m.pkl", pickle.dumps({"blobs": {"conv1_w": ARRAYS["square"]}}), "Caffe2"),
        (
            "R-50.pkl",
            pickle.dumps({"conv1_w": ARRAYS["square"], "res2_0_branch2a_w": ARRAYS["square"]}),
            "Caffe2",
        ),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DeployError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="No such file"):
        read_checkpoint(tmp_path / "absent.pkl")
    with pytest.raises(DeployError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_a_zip_that_torch_did_not_write(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DeployError, match=r"no data\.pkl"):
        read_checkpoint(path)


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    jit: Any = torch.jit
    jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    with pytest.raises(DeployError, match="TorchScript"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_protocol_that_torch_does_not_read_safely(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pth"
    torch.save(
        {"model": {"a.weight": torch.ones(2)}},
        path,
        pickle_protocol=4,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(DeployError, match="pickle protocol") as caught:
        read_checkpoint(path)
    assert "torch.save" in caught.value.hint


@pytest.mark.parametrize("text", [b"garbage text here\n", b"hello world\n", b"epoch,loss\n1,2\n"])
def test_text_under_a_checkpoints_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(text)
    with pytest.raises(DeployError) as caught:
        read_checkpoint(path)
    assert "cannot be read as a checkpoint: it is no whole pickle (" in caught.value.message
