"""COCO annotation files (https://cocodataset.org/#format-data), checked before any work."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures.files import printable
from pointrend_deploy.recipe.instance import InstanceRecipe
from pointrend_deploy.truth.annotations import (
    HW,
    InstanceTruth,
    Segmentation,
    TruthObject,
    TruthPicture,
    area_of,
    box_of,
    check_pictures,
    labels_of_categories,
    listed,
)
from pointrend_deploy.truth.objects import Annotated, mask_notes, set_notes
from pointrend_deploy.truth.polygons import LeftOut, are_shares, usable_polygons
from pointrend_deploy.wording import count_of


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str = ""  # LVIS v1 has addresses in its place
    neg_category_ids: list[int] | None = None


class _Category(msgspec.Struct):
    id: int
    name: str


class _RunLengths(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    segmentation: list[list[float | None]] | _RunLengths | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0
    ignore: int | bool = 0


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: str | Path, images: str | Path, recipe: InstanceRecipe) -> InstanceTruth:
    """Read an instance annotation file and find its pictures.

    Masks may be polygons or run lengths (compressed or not). ``bbox`` and ``area`` are computed
    from the mask where they are absent. Polygons of which no mask can be made are left out, and
    so are objects that have no other; notes say which. What else is suspicious is in the notes
    too, see :mod:`pointrend_deploy.truth.objects`.

    Args:
        path: the JSON file.
        images: the folder that its ``file_name`` entries start from.
        recipe: the recipe whose classes the categories must be.

    Raises:
        DeployError: the file is not an annotation file, or is LVIS's; an id is repeated or refers
            to nothing; categories are not the recipe's; run lengths are damaged; there is no object
            with a mask, or every one is a crowd; boxes are written as corners; pictures are missing
            or of another size. The message names the entry.
    """
    path, root = Path(path), Path(images)
    if not root.is_dir():
        raise DeployError(
            f"{root} is not a folder of pictures",
            "with annotations, --images is the folder their file names start from",
        )
    table = _decoded(path)
    where = str(path)
    _refuse_lvis(table, where)
    _refuse_repeats((image.id for image in table.images), f"{where}: picture id")
    _refuse_repeats((image.file_name for image in table.images), f"{where}: file_name")
    _refuse_repeats((each.id for each in table.annotations), f"{where}: annotation id")
    _refuse_repeats((each.id for each in table.categories), f"{where}: category id")
    _refuse_repeats((each.name for each in table.categories), f"{where}: category name")
    if not table.annotations:
        raise DeployError(
            f"{where} has no annotation: there is nothing to score against",
            "COCO's test sets are published without annotations; give those of val, or leave "
            "--coco out to compare the bundle with its reference alone",
        )
    pictures = {image.id: _picture(image, root, where) for image in table.images}
    names = {category.id: category.name for category in table.categories}
    for each in table.annotations:
        if each.image_id not in pictures:
            raise DeployError(
                f"{where}: annotation {each.id} is of picture {each.image_id}, which is not listed",
                _EDITED,
            )
        if each.category_id not in names:
            raise DeployError(
                f"{where}: annotation {each.id} has category {each.category_id}, "
                "which is not listed",
                _EDITED,
            )
    used = {each.category_id for each in table.annotations}
    labels, unlisted = labels_of_categories(names, used, recipe, where)
    check_pictures(list(pictures.values()), root, where)
    left_out = LeftOut()
    found = [
        annotated
        for each in table.annotations
        if (
            annotated := _object(
                each, pictures[each.image_id], labels[each.category_id], where, left_out
            )
        )
    ]
    _refuse_no_masks(found, left_out, where)
    objects = tuple(each.thing for each in found)
    listing = tuple(pictures.values())
    notes = (
        *left_out.notes(len(table.annotations)),
        *mask_notes(found, where),
        *set_notes(listing, objects, recipe, unlisted, where),
    )
    return InstanceTruth(path.name, listing, objects, unlisted, notes)


def _refuse_no_masks(found: Sequence[Annotated], left_out: LeftOut, where: str) -> None:
    if not found:
        some = listed(left_out.polygons or left_out.objects)
        raise DeployError(
            f"no annotation of {where} has a usable mask: {some}",
            "mask AP needs polygons of three points at least, or run lengths; a file of boxes "
            "only cannot be scored against",
        )
    polygons = [
        points
        for each in found
        if isinstance(each.thing.segmentation, list)
        for points in each.thing.segmentation
    ]
    if are_shares(polygons):
        raise DeployError(
            f"no coordinate of the {count_of(len(polygons), 'polygon')} of {where} is above 1",
            "coordinates are pixels of the picture, not shares of its sides: multiply x by the "
            "width and y by the height",
        )


_EDITED = "the file was cut or edited by hand; make it again from its source"


def _decoded(path: Path) -> _File:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DeployError(
            f"cannot read the annotations {path}: {error.strerror or error}",
            "--coco takes a JSON file such as annotations/instances_val2017.json",
        ) from error
    try:
        try:
            return msgspec.json.decode(raw, type=_File)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Python's json writes NaN and Infinity, which are no JSON: the same module reads them
            return msgspec.convert(json.loads(raw), _File)
    except msgspec.ValidationError as error:
        raise DeployError(
            f"{path} is not a COCO instance annotation file: {error}",
            "such a file has `images`, `annotations` and `categories`; keypoint, caption and "
            "result files have not",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DeployError(
            f"{path} is not JSON: {error}", "copy or download it again; it may be cut short"
        ) from error


def _refuse_lvis(table: _File, where: str) -> None:
    """Refuse LVIS's annotations: a picture of theirs names the classes it was searched for.

    Detections of other classes count as false in COCO's AP and not at all in LVIS's.
    """
    if any(image.neg_category_ids is not None for image in table.images):
        raise DeployError(
            f"{where} holds LVIS annotations (`neg_category_ids`): its pictures are annotated for "
            "some of the classes only, and COCO's AP would count the others as mistakes",
            "score the detections.json of `run` with LVIS's own evaluator; leave --coco out to "
            "compare the bundle with its reference alone",
        )


def _refuse_repeats(values: Iterable[Hashable], what: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise DeployError(f"{what} occurs more than once: {listed(twice)}", _EDITED)


def _picture(image: _Image, root: Path, where: str) -> TruthPicture:
    parts = PurePosixPath(image.file_name.replace("\\", "/"))
    if not image.file_name or parts.is_absolute() or ".." in parts.parts:
        raise DeployError(
            f"{where}: picture {image.id} has the file_name {image.file_name!r}",
            "file names lie below the folder given with --images",
        )
    if min(image.height, image.width) < 1:
        raise DeployError(
            f"{where}: picture {image.id} has the size {image.height}x{image.width}", _EDITED
        )
    return TruthPicture(image.id, printable(str(parts)), root / parts, (image.height, image.width))


def _object(
    each: _Annotation, picture: TruthPicture, label: int, where: str, left_out: LeftOut
) -> Annotated | None:
    """Make an annotation's object; None where it has no mask, which ``left_out`` then says."""
    short = f"annotation {each.id} of {picture.name}"
    name = f"{where}: annotation {each.id} (of {picture.name})"
    if each.ignore:
        raise DeployError(
            f"{name} has `ignore`, which neither detectron2 nor COCO's scores know",
            "mark a region that is not to be scored with iscrowd 1, or leave `ignore` out",
        )
    segmentation: Segmentation
    if isinstance(each.segmentation, _RunLengths):
        segmentation = _run_lengths(each.segmentation, picture.hw, name)
    else:
        polygons = usable_polygons(each.segmentation or [], picture.hw, short, left_out)
        if not polygons:
            return None
        segmentation = polygons
    area = area_of(segmentation, picture.hw) if each.area is None else each.area
    box = box_of(segmentation, picture.hw) if each.bbox is None else each.bbox
    if not all(map(math.isfinite, (*box, area))) or min(box[2], box[3], area) < 0:
        raise DeployError(f"{name} has the box {list(box)} and the area {area}", _EDITED)
    thing = TruthObject(picture.image_id, label, box, float(area), bool(each.iscrowd), segmentation)
    return Annotated(short, thing, picture.hw, each.bbox is not None, each.area is not None)


def _run_lengths(found: _RunLengths, hw: HW, name: str) -> dict[str, object]:
    if found.size != hw:
        raise DeployError(
            f"{name} has a mask of {found.size[0]}x{found.size[1]}, its picture is {hw[0]}x{hw[1]}",
            "a run-length encoding has its picture's height and width",
        )
    compressed = isinstance(found.counts, str)
    counts = compressed_counts(found.counts) if isinstance(found.counts, str) else found.counts
    if counts is None or min(counts, default=0) < 0 or sum(counts) != hw[0] * hw[1]:
        raise DeployError(
            f"{name} has a run-length encoding that does not fill its picture: it is damaged",
            _EDITED,
        )
    return {"size": list(hw), "counts": found.counts if compressed else list(counts)}


def compressed_counts(text: str) -> list[int] | None:
    """Decode the run lengths of COCO's compressed form (maskApi.c, rleFrString).

    A character's code minus 48 has six bits: five bits of a value, lowest first, and one bit that
    is set where more bits of the value follow. The highest bit of the last five is the sign. From
    the fourth run on, the value is the difference from the run two before.

    Args:
        text: the ``counts`` of an annotation.

    Returns:
        The lengths of the runs in pixels, beginning with the background; None if the text is
        malformed.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts if shift == 0 else None
