"""The two mask heads of the demonstration, side by side on the same scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pointrend_deploy.bundle.folder import Bundle
from pointrend_deploy.pictures.canvas import from_rgb
from pointrend_deploy.pictures.files import read_picture
from pointrend_deploy.report.gallery.instance import make_instance_item
from pointrend_deploy.report.gallery.tiles import GalleryItem
from pointrend_deploy.run.instance.instances import Instances
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.truth.coco import read_coco

STANDARD_HEAD: Final = "standard mask head"
POINTREND: Final = "PointRend"


def beside_one_another(
    bundles: Mapping[str, Path], pictures: Path, annotations: Path, names: Sequence[str]
) -> list[GalleryItem]:
    """Draw both heads' masks on some scenes, the truth, and the outline where they differ most.

    Args:
        bundles: the folders of the bundles by :data:`STANDARD_HEAD` and :data:`POINTREND`.
        pictures: the folder that the annotations' file names start from.
        annotations: of the scenes, in COCO's form.
        names: stems of the scenes' files, in the order they are drawn in.
    """
    opened = {name: Bundle.open(path) for name, path in bundles.items()}
    runners = {name: open_runner(bundle, "onnx") for name, bundle in opened.items()}
    recipe, _ = opened[POINTREND].manifest.instances
    truth = read_coco(annotations, pictures, recipe)
    objects = truth.objects_by_picture()
    known = {picture.path.stem: picture for picture in truth.pictures}
    made = []
    for name in names:
        picture = known[name]
        rgb = read_picture(picture.path).rgb
        sides: dict[str, Instances] = {
            title: runner.predict(from_rgb(rgb, opened[title].manifest))["instances"]
            for title, runner in runners.items()
        }
        made.append(
            make_instance_item(
                name,
                rgb,
                sides,
                recipe,
                objects.get(picture.image_id, ()),
                zoom=(STANDARD_HEAD, POINTREND),
            )
        )
    return made
