"""Parameter names: today's names for old ones, and what kind of model a set of names belongs to.

Sources of the renamings: detectron2 projects/PointRend, ``roi_heads.py`` (mask_point_head,
mask_coarse_head) and ``mask_head.py`` (coarse_mask_fc). detectron2 applies them when a file's
version is below 2; here the old name itself is the sign, so files without versions convert too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pointrend_deploy.errors import DeployError

Value = TypeVar("Value")

RENAMED = (
    ("roi_heads.mask_point_head.", "roi_heads.mask_head.point_head."),
    ("roi_heads.mask_coarse_head.", "roi_heads.mask_head.coarse_head."),
    ("roi_heads.mask_head.coarse_head.coarse_mask_fc", "roi_heads.mask_head.coarse_head.fc"),
)
"""(old beginning, today's), applied one after another."""

PARALLEL_PREFIX = "module."
"""Prefix of every name in a model that was saved inside DistributedDataParallel."""

POINT_HEAD = "sem_seg_head.point_head."
COARSE_HEAD = "sem_seg_head.coarse_sem_seg_head."
LONE_HEAD = "sem_seg_head."


def todays_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Rename a checkpoint's parameters to the names the reference model uses.

    In a file with a semantic point head but no ``coarse_sem_seg_head``, the coarse layers are
    directly under ``sem_seg_head``; they are moved.

    Raises:
        DeployError: an old and a new name of one parameter are both there.
    """
    parallel = bool(tensors) and all(name.startswith(PARALLEL_PREFIX) for name in tensors)
    plain = {name[len(PARALLEL_PREFIX) * parallel :]: name for name in tensors}
    moved = any(name.startswith(POINT_HEAD) for name in plain)
    moved = moved and not any(name.startswith(COARSE_HEAD) for name in plain)
    renamed: dict[str, Value] = {}
    source: dict[str, str] = {}
    for name, original in plain.items():
        new = name
        for old_start, new_start in RENAMED:
            if new.startswith(old_start):
                new = new_start + new[len(old_start) :]
        if moved and new.startswith(LONE_HEAD) and not new.startswith(POINT_HEAD):
            new = COARSE_HEAD + new[len(LONE_HEAD) :]
        if new in renamed:
            raise DeployError(
                f"the checkpoint has {new} twice: as {source[new]} and as {original}",
                "remove the one that is out of date",
            )
        renamed[new], source[new] = tensors[original], original
    return renamed


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        what: as a user would say it.
        task: the ``task`` of the recipes it fits; empty where no recipe does.
        advice: which recipe to use, or what to do instead.
    """

    what: str
    task: str
    advice: str


_LISTED = "export/README.md lists the recipes"
_INSTANCE = f"use a recipe whose `task` is `instance`; {_LISTED}"
_BACKBONE_ONLY = (
    "it is what training starts from; give the file training wrote, model_final.pth or .pkl"
)

_KINDS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (
        ("roi_heads.mask_head.parameter_head.",),
        Kind(
            "an Implicit PointRend instance checkpoint",
            "instance",
            f"no recipe describes Implicit PointRend; {_LISTED}",
        ),
    ),
    (
        ("roi_heads.mask_head.point_head.",),
        Kind("a PointRend instance checkpoint (PointRend R-CNN)", "instance", _INSTANCE),
    ),
    (
        ("roi_heads.", "sem_seg_head."),
        Kind(
            "a Panoptic FPN checkpoint",
            "",
            f"no recipe has both an instance and a semantic head; {_LISTED}",
        ),
    ),
    (
        ("roi_heads.mask_head.",),
        Kind("a Mask R-CNN instance checkpoint", "instance", _INSTANCE),
    ),
    (("roi_heads.",), Kind("a box detector's checkpoint, without masks", "", _LISTED)),
    (
        ("sem_seg_head.aspp.",),
        Kind("a DeepLab checkpoint", "", f"use a DeepLab recipe, if one is there; {_LISTED}"),
    ),
    (
        ("sem_seg_head.decoder.",),
        Kind("a DeepLabV3+ checkpoint", "", f"use a DeepLab recipe, if one is there; {_LISTED}"),
    ),
    (
        (POINT_HEAD,),
        Kind(
            "a PointRend semantic checkpoint",
            "semantic",
            f"use a pointrend_semantic_fpn recipe; {_LISTED}",
        ),
    ),
    (
        ("sem_seg_head.",),
        Kind(
            "a SemanticFPN checkpoint without a point head",
            "semantic",
            f"use a semantic_fpn recipe; {_LISTED}",
        ),
    ),
    (
        ("decode_head.",),
        Kind(
            "an mmsegmentation checkpoint",
            "",
            "detectron2's parameter names are expected: rename its parameters first",
        ),
    ),
    (("stem.conv1.", "res2.0."), Kind("an ImageNet backbone", "", _BACKBONE_ONLY)),
    (("layer1.0.", "conv1."), Kind("a torchvision ResNet", "", _BACKBONE_ONLY)),
    (("backbone.",), Kind("a backbone without heads", "", _BACKBONE_ONLY)),
)


def kind_of(names: Collection[str]) -> Kind:
    """Recognise a model by its parameter names: the first kind whose every beginning occurs."""
    for beginnings, kind in _KINDS:
        if all(any(name.startswith(start) for name in names) for start in beginnings):
            return kind
    first = ", ".join(sorted(names)[:3])
    return Kind(
        f"no detectron2 model (its parameters are called {first}, ...)",
        "",
        "detectron2's parameter names are expected, such as backbone.fpn_lateral2.weight",
    )


def refuse_other_kinds(names: Collection[str], recipe_name: str, task: str) -> None:
    """Refuse a checkpoint of another task than the recipe's.

    Raises:
        DeployError: saying what the checkpoint is and which recipe to use.
    """
    kind = kind_of(names)
    if kind.task != task:
        raise DeployError(
            f"the checkpoint is {kind.what}; the recipe {recipe_name} is for {task} models",
            kind.advice,
        )
