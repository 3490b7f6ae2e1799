"""Files with several sets of weights: which is taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pointrend_deploy.checkpoint.read import read_weights
from pointrend_deploy.errors import DeployError

NAMES = ("backbone.fpn_lateral2.weight", "sem_seg_head.predictor.weight")


def weights(value: float, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.full((2,), value) for name in NAMES}


def file_of(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "model.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "key", "others"),
    [
        (weights(1.0), "", ()),
        ({"model": weights(1.0), "optimizer": {"state": weights(9.0)}}, "model", ()),
        ({"model": weights(1.0), "ema": weights(2.0)}, "model", ("ema",)),
        ({"state_dict": weights(1.0), "state_dict_ema": weights(2.0)}, "state_dict", None),
        ({"model": weights(1.0), "any word": {"shadow": weights(2.0)}}, "model", None),
        ({"ema_state": weights(1.0), "epoch": 3}, "ema_state", ()),
        ({"model": weights(1.0, "model.") | weights(2.0, "model_ema.")}, "model.model", None),
    ],
)
def test_the_usual_set_is_taken_and_the_others_are_named(
    tmp_path: Path, content: dict[str, Any], key: str, others: tuple[str, ...] | None
) -> None:
    found = read_weights(file_of(tmp_path, content))
    assert found.key == key
    assert [float(value[0]) for value in found.tensors.values()] == [1.0, 1.0]
    assert found.others == others if others is not None else len(found.others) == 1


@pytest.mark.parametrize("key", ["ema", "extra.ema"])
def test_a_key_chooses(tmp_path: Path, key: str) -> None:
    path = file_of(tmp_path, {"model": weights(1.0), "extra": {"ema": weights(2.0)}})
    found = read_weights(path, key)
    assert (found.key, found.others) == ("extra.ema", ("model",))
    assert [float(value[0]) for value in found.tensors.values()] == [2.0, 2.0]


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"model": weights(1.0), "ema": weights(2.0)})
    with pytest.raises(DeployError, match="no weights under the key 'emma'") as caught:
        read_weights(path, "emma")
    assert (
        caught.value.hint == "its sets of weights have the keys model (2 tensors), ema (2 tensors)"
    )
    with pytest.raises(DeployError) as caught:
        read_weights(file_of(tmp_path, weights(1.0)), "ema")
    assert "leave --weights-key out" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        {"teacher": weights(1.0), "student": weights(2.0)},
        weights(1.0, "teacher.") | weights(2.0, "student."),
        weights(1.0, "modelTeacher.") | weights(2.0, "modelStudent."),
    ],
)
def test_nothing_is_guessed_between_equals(tmp_path: Path, content: dict[str, Any]) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(DeployError, match="2 sets of weights, and nothing tells which") as caught:
        read_weights(path)
    assert "--weights-key" in caught.value.hint
    first = next(iter(content)).split(".")[0]
    assert float(next(iter(read_weights(path, first).tensors.values()))[0]) == 1.0
