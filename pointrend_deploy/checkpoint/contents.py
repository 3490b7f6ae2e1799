"""The sets of weights that a checkpoint file holds, and the choice among them.

A file may hold one set at its top level or under a key (``model``, ``state_dict``), and others
beside it: an exponential moving average (``ema``, ``state_dict_ema``), a teacher and a student.
Some tools put both into one table, under two prefixes. The set that is not taken is never dropped
without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pointrend_deploy.checkpoint.pickle.globals import NumpyArray
from pointrend_deploy.checkpoint.prefixes import ROOTS, is_usual, prefixes
from pointrend_deploy.errors import DeployError
from pointrend_deploy.wording import count_of

SAVE_AGAIN = (
    "save the weights alone where the model was trained: "
    'torch.save({"model": model.state_dict()}, "model_final.pth")'
)

_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state")
"""Keys that a model's weights usually stand under, the first one that is there taken."""
BESIDE_WEIGHTS = {
    *("__author__", "author", "matching_heuristics", "iteration", "epoch", "step", "meta"),
    *("optimizer", "lr_scheduler", "scheduler", "trainer", "hooks", "grad_scaler", "scaler", "cfg"),
    *("config", "hyper_parameters"),
}
"""Keys of what may stand among a model's tensors and is none."""
_NO_WEIGHTS = {
    *("optimizer", "optimizers", "optimizer_states", "lr_scheduler", "lr_schedulers", "scheduler"),
    *("trainer", "hooks", "grad_scaler", "scaler", "loops", "meta", "cfg", "config"),
    *("hyper_parameters", "message_hub", "rng_state"),
}
"""Keys below which tensors are no weights of a model."""
_DEPTH = 8

Table = Mapping[object, object]
Path = tuple[str, ...]


@dataclass(frozen=True)
class WeightSet:
    """One set of weights of a file.

    Attributes:
        key: what a user calls it: keys with dots between them, then the prefix of its names where
            a table holds several sets; empty for the whole top level.
        entries: name in the file to tensor or array.
    """

    key: str
    entries: Table = field(repr=False)


@dataclass(frozen=True)
class Chosen:
    """The set of weights that is used.

    Attributes:
        taken: that set.
        others: keys of the sets that are not used.
    """

    taken: WeightSet
    others: tuple[str, ...]


def choose(content: object, key: str | None = None) -> Chosen:
    """Choose a set of weights in what a checkpoint file holds.

    Args:
        content: what the file holds.
        key: of the set; None for the usual one: at the top level, or under ``model`` or
            ``state_dict``, or the only one there is.

    Raises:
        DeployError: there are no weights, none under ``key``, or several and none is the usual
            one; or the set has an entry that is no tensor.
    """
    if not isinstance(content, Mapping):
        raise DeployError(f"it is a {type(content).__name__}, not named weights", SAVE_AGAIN)
    _refuse_caffe2(content)
    tables = {path: table for path, table in _tables(content) if path or _is_top(content)}
    if not tables:
        _refuse_without_weights(content)
    sets: dict[str, WeightSet] = {}
    usual: dict[Path, str | None] = {}
    for path, table in tables.items():
        own, preferred = _sets(path, table)
        sets.update({each.key: each for each in own})
        usual[path] = preferred
    found = _usual(content, usual, sets) if key is None else _named(key, usual, sets)
    taken = sets[found]
    _check_entries(taken)
    return Chosen(taken, tuple(other for other in sets if other != found))


def _tables(content: Table) -> Iterator[tuple[Path, Table]]:
    """Every table that holds tensors, by the keys that lead to it."""
    waiting: list[tuple[Path, Table]] = [((), content)]
    seen = set()
    while waiting:
        path, table = waiting.pop(0)
        if id(table) in seen or len(path) > _DEPTH or {"state", "param_groups"} <= set(table):
            continue
        seen.add(id(table))
        if _tensor_names(table):
            yield path, table
        for name, value in table.items():
            if isinstance(name, str) and isinstance(value, Mapping) and name not in _NO_WEIGHTS:
                waiting.append(((*path, name), value))


def _is_tensor(value: object) -> bool:
    return isinstance(value, (Tensor, NumpyArray))


def _tensor_names(table: Table) -> list[str]:
    return [name for name, value in table.items() if isinstance(name, str) and _is_tensor(value)]


def _is_top(content: Table) -> bool:
    """Whether tensors at the top level are weights, not the odd state beside a wrapped model."""
    wrapped = any(isinstance(content.get(key), Mapping) for key in _WRAPPERS)
    return not wrapped or any(name.split(".")[0] in ROOTS for name in _tensor_names(content))


def _sets(path: Path, table: Table) -> tuple[list[WeightSet], str | None]:
    """The sets of one table, and the key of the usual one if there is one."""
    entries = {
        name: value
        for name, value in table.items()
        if not isinstance(value, Mapping) or not any(_tables({"": value}))
    }
    found = _copies(_tensor_names(table))
    if len(found) < 2:
        return [WeightSet(".".join(path), entries)], ".".join(path)
    plain = [prefix for prefix in found if is_usual(prefix)]
    preferred = "" if "" in found else plain[0] if len(plain) == 1 else None
    owners = {name: _owner(str(name), found, preferred) for name in entries}
    sets = [
        WeightSet(
            _joined(path, prefix),
            {name: value for name, value in entries.items() if owners[name] == prefix},
        )
        for prefix in found
    ]
    return sets, None if preferred is None else _joined(path, preferred)


def _copies(names: Collection[str]) -> tuple[str, ...]:
    """The prefixes that stand before the same names, as those of a teacher and a student do."""
    found = prefixes(names)
    bare = {
        prefix: {name[len(prefix) :] for name in names if _owner(name, found, "") == prefix}
        for prefix in found
    }
    return tuple(
        prefix
        for prefix in found
        if any(
            2 * len(bare[prefix] & bare[other]) >= min(len(bare[prefix]), len(bare[other]))
            for other in found
            if other != prefix
        )
    )


def _owner(name: str, found: Collection[str], rest: str | None) -> str | None:
    """The longest prefix that a name begins with; ``rest`` for a name that has none."""
    return max((p for p in found if p and name.startswith(p)), key=len, default=rest)


def _joined(path: Path, prefix: str) -> str:
    return ".".join([*path, *prefix.split(".")[:-1]])


def _usual(content: Table, usual: Mapping[Path, str | None], sets: Mapping[str, WeightSet]) -> str:
    path: Path = ()
    inner: object = content
    while isinstance(inner, Mapping) and len(path) < _DEPTH:
        step = next((key for key in _WRAPPERS if isinstance(inner.get(key), Mapping)), None)
        if step is None:
            break
        path, inner = (*path, step), inner[step]
    if path not in usual and len(usual) == 1:
        path = next(iter(usual))
    found = usual.get(path)
    if found is None:
        raise DeployError(
            f"it holds {count_of(len(sets), 'set')} of weights, and nothing tells which is meant: "
            f"{_listed(sets)}",
            "choose one: --weights-key KEY",
        )
    return found


def _named(key: str, usual: Mapping[Path, str | None], sets: Mapping[str, WeightSet]) -> str:
    if key in sets and key:
        return key
    for path, found in usual.items():
        if found is not None and ".".join(path) == key:
            return found
    ending = [name for name in sets if key and name.endswith(f".{key}")]
    if len(ending) == 1:
        return ending[0]
    if list(sets) == [""]:
        hint = "its only weights stand at its top level: leave --weights-key out"
    else:
        hint = f"its sets of weights have the keys {_listed(sets)}"
    raise DeployError(f"it has no weights under the key {key!r}", hint)


def _listed(sets: Mapping[str, WeightSet]) -> str:
    return ", ".join(
        f"{key or '(the top level)'} ({count_of(len(_tensor_names(each.entries)), 'tensor')})"
        for key, each in sets.items()
    )


def _check_entries(taken: WeightSet) -> None:
    for name, value in taken.entries.items():
        if not isinstance(name, str) or not (_is_tensor(value) or name in BESIDE_WEIGHTS):
            raise DeployError(
                f"its entry {str(name)[:80]!r} is a {type(value).__name__}, not a tensor",
                SAVE_AGAIN,
            )


def _refuse_without_weights(content: Table) -> None:
    inner: object = content
    for _ in range(_DEPTH):
        if not isinstance(inner, Mapping):
            break
        inner = next((inner[key] for key in _WRAPPERS if key in inner), None) or inner
    if isinstance(inner, Mapping):
        _check_entries(WeightSet("", inner))
    raise DeployError("it has no tensors", SAVE_AGAIN)


def _refuse_caffe2(content: Table) -> None:
    caffe2_stem = "conv1_w" in content and "res2_0_branch2a_w" in content
    if "blobs" in content or caffe2_stem:
        raise DeployError(
            "it is a Caffe2 pickle (Detectron 1, or an ImageNet backbone such as R-50.pkl), which "
            "training starts from: it has no detectron2 segmentation model in it",
            "give the file that detectron2's training wrote, model_final.pth or model_final.pkl",
        )
