"""Prefixes that training tools put before a model's parameter names.

``module.`` comes from DistributedDataParallel, ``model.`` from a LightningModule, ``_orig_mod.``
from torch.compile; they also come together, in any order. Another attribute's name, such as
``net.``, is known by detectron2's names behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pointrend_deploy.errors import DeployError

Value = TypeVar("Value")

ROOTS = ("backbone", "proposal_generator", "roi_heads", "sem_seg_head")
"""First part of the names of a detectron2 model's parameters."""
USUAL = ("module", "model", "_orig_mod")
"""Prefixes of training tools, each without its dot."""
INNER = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Parts of a name that torch's wrappers of a single layer add."""


def prefixes(names: Collection[str]) -> tuple[str, ...]:
    """List what stands before detectron2's names: ``""``, ``"model."``, ``"teacher.module."``...

    Names that have none of :data:`ROOTS` in them count for nothing.
    """
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        first = next((i for i, part in enumerate(parts) if part in ROOTS), None)
        if first is not None:
            found[".".join([*parts[:first], ""])] = None
    return tuple(found)


def is_usual(prefix: str) -> bool:
    """Whether training tools alone made a prefix, of :data:`USUAL` parts; ``""`` is none."""
    return all(part in USUAL for part in prefix.split(".")[:-1])


@dataclass(frozen=True)
class Bare:
    """Names without what was taken off.

    Attributes:
        originals: the name in the file, by the bare name.
        prefix: taken off the front, with its dot; empty where there was none.
        inner: parts of :data:`INNER` that were taken out of the middle.
    """

    originals: Mapping[str, str]
    prefix: str
    inner: tuple[str, ...] = ()


def bare(names: Collection[str]) -> Bare:
    """Take a prefix off the names that have it.

    It is taken off where all of the model's names have it. Names beside them, of a loss or a
    discriminator, stay as they are. A model of another library loses only :data:`USUAL` prefixes
    that all its names have.

    Raises:
        DeployError: two names become one.
    """
    found = prefixes(names)
    prefix = found[0] if len(found) == 1 else "" if found else _shared(names)
    originals: dict[str, str] = {}
    inner: dict[str, None] = {}
    for name in names:
        parts = name[len(prefix) :].split(".") if name.startswith(prefix) else name.split(".")
        inner.update(dict.fromkeys(part for part in parts if part in INNER))
        short = ".".join(part for part in parts if part not in INNER)
        if short in originals:
            raise DeployError(
                f"the checkpoint has {short} twice: as {originals[short]} and as {name}",
                "remove the one that is out of date",
            )
        originals[short] = name
    return Bare(originals, prefix, tuple(inner))


def _shared(names: Collection[str]) -> str:
    prefix = ""
    while names:
        rest = [name[len(prefix) :] for name in names]
        more = next((p for p in USUAL if all(name.startswith(f"{p}.") for name in rest)), None)
        if more is None:
            break
        prefix += f"{more}."
    return prefix
