"""Make the files of demo/ and calibration/ that the repository does not store.

    python -m scripts.unpack_demo

They follow from what is stored: scenes from the scenes without their noise, the instance model
with the standard mask head from the PointRend model, which has the same trunk, and that head, and
the semantic model with a dense head from its differences from the one with PointRend.
`make demo`, the tests, benchmarks and trainers do this themselves. Files that are right are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from pointrend_deploy import atomic
from pointrend_deploy.errors import DeployError

ROOT: Final = Path(__file__).resolve().parent.parent
SCENES: Final = {
    "demo/noiseless/scenes": "demo/scenes",
    "demo/noiseless/instance": "demo/instance/scenes",
    "calibration/noiseless": "calibration/scenes",
}
"""Folder of stored scenes -> folder of PNG files."""
MASK_HEAD: Final = "roi_heads.mask_head."
TRUNK: Final = "demo/demo_instance.safetensors"
HEAD: Final = "demo/demo_instance_standard_mask_head.xz"
STANDARD: Final = "demo/demo_instance_standard.safetensors"
SEMANTIC: Final = "demo/demo_semantic.safetensors"
DIFFERENCES: Final = "demo/demo_semantic_dense.xz"
DENSE: Final = "demo/demo_semantic_dense.safetensors"


def main() -> int:
    """Make the files; 1 with a message where something stored is damaged."""
    try:
        written = unpack()
    except DeployError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(f"{len(written)} files written below {ROOT}")
    return 0


def unpack(root: Path = ROOT) -> list[Path]:
    """Make the files below ``root`` that are missing or not what they should be.

    Returns:
        The files written.

    Raises:
        DeployError: something stored is missing or damaged.
    """
    from scripts.demo_training import noise

    written = []
    try:
        for stored, scenes in SCENES.items():
            written += noise.restore(root / stored, root / scenes)
        made = {
            STANDARD: standard_weights(root / TRUNK, root / HEAD),
            DENSE: dense_weights(root / SEMANTIC, root / DIFFERENCES),
        }
    except (OSError, ValueError, KeyError) as error:
        raise DeployError(
            f"cannot read what demo/ and calibration/ store: {error}", "restore both folders"
        ) from error
    for name, data in made.items():
        path = root / name
        if not path.is_file() or path.read_bytes() != data:
            atomic.write_bytes(path, data)
            written.append(path)
    return written


def standard_weights(trunk: Path, head: Path) -> bytes:
    """The checkpoint of a model with the mask head of ``head`` and the rest of ``trunk``."""
    from safetensors.torch import save

    from pointrend_deploy.checkpoint.read import read_checkpoint
    from scripts.demo_training.packed import unpacked

    tensors = {k: v for k, v in read_checkpoint(trunk).items() if not k.startswith(MASK_HEAD)}
    return bytes(save(tensors | unpacked(head.read_bytes(), {})))


def dense_weights(semantic: Path, differences: Path) -> bytes:
    """The checkpoint of the semantic model with a dense head."""
    from safetensors.torch import save

    from pointrend_deploy.checkpoint.read import read_checkpoint
    from scripts.demo_training.packed import unpacked

    return bytes(save(unpacked(differences.read_bytes(), read_checkpoint(semantic))))


if __name__ == "__main__":
    sys.exit(main())
