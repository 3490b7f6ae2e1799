"""Parameter names: today's names for old ones.

Sources of the renamings: detectron2 projects/PointRend, ``roi_heads.py`` (mask_point_head,
mask_coarse_head) and ``mask_head.py`` (coarse_mask_fc). detectron2 applies them when a file's
version is below 2; here the old name itself is the sign, so files without versions convert too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pointrend_deploy.checkpoint.families import POINT_HEAD
from pointrend_deploy.errors import DeployError

Value = TypeVar("Value")

RENAMED = (
    ("roi_heads.mask_point_head.", "roi_heads.mask_head.point_head."),
    ("roi_heads.mask_coarse_head.", "roi_heads.mask_head.coarse_head."),
    ("roi_heads.mask_head.coarse_head.coarse_mask_fc", "roi_heads.mask_head.coarse_head.fc"),
)
"""(old beginning, today's), applied one after another."""

COARSE_HEAD = "sem_seg_head.coarse_sem_seg_head."
LONE_HEAD = "sem_seg_head."


def todays_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Rename a checkpoint's parameters to the names the reference model uses.

    In a file with a semantic point head but no ``coarse_sem_seg_head``, the coarse layers are
    directly under ``sem_seg_head``; they are moved.

    Raises:
        DeployError: an old and a new name of one parameter are both there.
    """
    moved = any(name.startswith(POINT_HEAD) for name in tensors)
    moved = moved and not any(name.startswith(COARSE_HEAD) for name in tensors)
    renamed: dict[str, Value] = {}
    source: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = name
        for old_start, new_start in RENAMED:
            if new.startswith(old_start):
                new = new_start + new[len(old_start) :]
        if moved and new.startswith(LONE_HEAD) and not new.startswith(POINT_HEAD):
            new = COARSE_HEAD + new[len(LONE_HEAD) :]
        if new in renamed:
            raise DeployError(
                f"the checkpoint has {new} twice: as {source[new]} and as {name}",
                "remove the one that is out of date",
            )
        renamed[new], source[new] = tensor, name
    return renamed
