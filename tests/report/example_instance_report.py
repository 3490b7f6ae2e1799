"""A record of an instance bundle as a user gets it, of a model that knows what was drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.bundle.manifest import Manifest
from pointrend_deploy.parity.instance.boxes import Detections
from pointrend_deploy.parity.instance.compare import compare_instances
from pointrend_deploy.parity.instance.picture import ToCompare
from pointrend_deploy.parity.instance.selection import Pool
from pointrend_deploy.parity.instance.task import annotated
from pointrend_deploy.parity.record import runs as results
from pointrend_deploy.parity.record.runs import Run
from pointrend_deploy.parity.scores.average_precision import Scorer
from pointrend_deploy.pictures.canvas import fit, from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.recipe.instance import InstanceClassesSpec
from pointrend_deploy.report.gallery.instance import InstanceGallery
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.truth.coco import read_coco
from tests.fixtures.instance_data import Thing, drawn, recipe, scene, table, written
from tests.fixtures.tiny_instances import things_manifest

Array = npt.NDArray[Any]
Mistake = Callable[[dict[str, Array]], None]
SIDE, ROOM = 56, 20
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115))
HW = (96, 128)


def manifest(names: tuple[str, ...] = ()) -> Manifest:
    known = recipe().classes
    classes = InstanceClassesSpec(
        names=names or known.names, colours=COLOURS, category_ids=known.category_ids
    )
    made = things_manifest(
        size_hw=(192, 256), detections=ROOM, recipe=recipe(classes=classes), mask_side=SIDE
    )
    return msgspec.structs.replace(made, name="tiny_instance")


def logits(thing: Thing, box: Array, side: int) -> Array:
    """How sure a head might be of each cell of the box: smooth, with a sign at the edge."""
    image = Image.fromarray(thing.mask.astype(np.float32) * 2 - 1)
    found = image.resize((side, side), Image.Resampling.BILINEAR, box=tuple(float(v) for v in box))
    return 6 * np.asarray(found)


class Knowing:
    """The reference of one picture: it finds what was drawn, boxes a little off."""

    def __init__(self, things: list[Thing], scale: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        own = np.array([thing.box for thing in things], np.float32).reshape(-1, 4)
        own = own + rng.uniform(-1.2, 1.2, own.shape)
        self._own = np.clip(own, 0, [HW[1], HW[0]] * 2).astype(np.float32)
        self._things = things
        self.fitted_hw = (round(HW[0] * scale), round(HW[1] * scale))
        scores = np.sort(rng.uniform(0.3, 0.99, len(things)))[::-1].astype(np.float32)
        classes = np.array([thing.label for thing in things], np.int64)
        self.found = Detections(np.float32(scale) * self._own, scores, classes)
        self.features: dict[str, Array] = {}
        self.proposals = self.found.boxes

    def proposal_pool(self) -> Pool:
        return self._pool()

    def detections(self, proposals: Array) -> tuple[Detections, Callable[[], Pool]]:
        return self.found, self._pool

    def _pool(self) -> Pool:
        count = len(self._things)
        found = self.found
        return Pool(
            found.boxes,
            found.scores,
            found.classes,
            np.zeros(count, np.bool_),
            0.5,
            ROOM,
            1e-3,
            np.arange(count),
        )

    def mask_stages(self, boxes: Array, classes: Array) -> dict[str, Array]:
        pairs = list(zip(self._things, self._own, strict=True))
        coarse = np.stack([logits(thing, box, 7) for thing, box in pairs])
        fine = np.stack([logits(thing, box, SIDE) for thing, box in pairs])
        indices = np.argsort(np.abs(fine).reshape(len(fine), -1), axis=1)[:, :196]
        return {
            "coarse": np.repeat(coarse[:, None], 3, axis=1),
            "step1.indices": indices,
            "mask_logits": fine[:, None].astype(np.float32),
        }


class Drawn:
    """A set of scenes, the runner that finds them again, and the reference."""

    def __init__(self, folder: Path, described: Manifest, mistake: Mistake | None = None) -> None:
        self.name = "onnx"
        self.bundle = Bundle(folder, described)
        self._mistake = mistake
        crowd = Thing(1, drawn(1, HW, 12, 100, 11).mask, crowd=True)
        scenes = [[*scene(seed, HW, 5), *([crowd] if seed == 2 else [])] for seed in range(5)]
        files = [f"val/scene {number}.png" for number in range(5)]
        self.annotations, self.images = written(folder, scenes, table(scenes, files))
        self._known: dict[int, Knowing] = {}
        for number, (things, file) in enumerate(zip(scenes, files, strict=True)):
            rgb = read_picture(self.images / file).rgb
            key = _key(fit(from_rgb(rgb, described), described).array)
            seen = [thing for thing in things if not thing.crowd]
            self._known[key] = Knowing(seen[: 5 - number % 2], 2.0, number)

    def reference(self, batch: dict[str, Array], row: int) -> Knowing:
        return self._known[_key(batch["image"][row])]

    def infer(self, batch: dict[str, Array]) -> dict[str, Array]:
        theirs = self.reference(batch, 0)
        count = len(theirs.found.boxes)
        masks = theirs.mask_stages(theirs.found.boxes, theirs.found.classes)["mask_logits"][:, 0]
        outputs: dict[str, Array] = {
            "num_detections": np.array([count], np.int64),
            "boxes": np.zeros((1, ROOM, 4), np.float32),
            "scores": np.zeros((1, ROOM), np.float32),
            "classes": np.zeros((1, ROOM), np.int64),
            "masks": np.zeros((1, ROOM, SIDE, SIDE), np.float32),
        }
        outputs["boxes"][0, :count] = theirs.found.boxes + np.float32(1e-4)
        outputs["scores"][0, :count] = theirs.found.scores * np.float32(1 + 1e-6)
        outputs["classes"][0, :count] = theirs.found.classes
        outputs["masks"][0, :count] = 1 / (1 + np.exp(-masks))
        if self._mistake is not None:
            self._mistake(outputs)
        return outputs


def _key(image: Array) -> int:
    return int(np.abs(image).sum(dtype=np.float64))


def compared(
    folder: Path, mistake: Mistake | None = None, names: tuple[str, ...] = (), scored: bool = True
) -> tuple[Manifest, Run, list[GalleryItem]]:
    described = manifest(names)
    drawn_set = Drawn(folder, manifest(), mistake)
    truth = read_coco(drawn_set.annotations, drawn_set.images, recipe())
    (folder / "torn.png").write_bytes(b"torn")
    given = [
        each if scored else ToCompare(each.name, each.path, each.image_id)
        for each in annotated(truth)
    ]
    given.append(ToCompare("torn", folder / "torn.png"))
    shown, _ = described.instances
    gallery = InstanceGallery(shown, 2)
    run = compare_instances(
        drawn_set,
        drawn_set.reference,
        given,
        Scorer(truth, shown) if scored else None,
        versions={"onnxruntime": "1.32.0"},
        seen=gallery,
    )
    return described, run, gallery.items


def make(
    folder: Path, mistake: Mistake | None = None, names: tuple[str, ...] = (), scored: bool = True
) -> tuple[dict[str, Any], dict[str, Any], list[GalleryItem]]:
    """The manifest, the record and the gallery, as the reports take them."""
    described, run, gallery = compared(folder, mistake, names, scored)
    return (
        msgspec.to_builtins(described),
        msgspec.to_builtins(results.Parity(runs={"compare": run})),
        gallery,
    )
