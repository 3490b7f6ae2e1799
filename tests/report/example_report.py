"""A record as a user gets it, made from the page of numpy: passed or failed, with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.semantic.compare import compare
from pointrend_deploy.recipe.parts import ClassesSpec
from pointrend_deploy.report.gallery.semantic import LabelGallery
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.truth import label_maps as dataset
from tests.fixtures import tiny_pointrend as tiny
from tests.fixtures.fake_bundle import TinyRunner, manifest, reference
from tests.parity.record.test_runs import example

NASTY = "<script>alert('x')</script> | *a* `b`"


def make(
    folder: Path, mistake: str = "", names: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any], list[GalleryItem]]:
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    rng = np.random.default_rng(2)
    for index in range(4):
        rgb = np.kron(rng.integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(rgb).save(images / f"scene {index}.png")
        seed = int(rgb.astype(np.float32).transpose(2, 0, 1)[None].sum()) % 997
        truth = tiny.run(seed=seed)["labels"][0].copy()
        truth[:6] = 255
        truth[20:30, 20:40] = index
        Image.fromarray(truth).save(labels / f"scene {index}.png")
    (images / "torn.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(labels / "torn.png")
    pairs = dataset.pairs(images, labels)
    candidate = TinyRunner(("stages",), mistake)
    described = manifest(names=names)
    if names:
        candidate.bundle.manifest = msgspec.structs.replace(
            candidate.bundle.manifest,
            recipe=msgspec.structs.replace(
                candidate.bundle.manifest.recipe, classes=ClassesSpec(names=names)
            ),
        )
    gallery = LabelGallery(candidate.bundle.manifest, 2)
    versions = {"onnxruntime": "1.32.0"}
    run = compare(candidate, reference(), pairs, versions, seen=gallery)
    parity = results.Parity(runs={"export": example(mistake=mistake), "compare": run})
    return (
        msgspec.to_builtins(described),
        msgspec.to_builtins(parity),
        gallery.items,
    )
