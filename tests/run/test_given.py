"""Pictures as programs have them: arrays in either order, paths, PIL pictures; and drawings."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.files import read_picture, rgb_of
from pointrend_deploy.run.folder import run_pictures
from pointrend_deploy.run.open import open_runner
from pointrend_deploy.run.overlay import picture_bytes
from pointrend_deploy.run.runner import BundleRunner
from pointrend_deploy.run.writer import PictureOptions
from tests.fixtures.tiny_bundle import colour_picture, write_tiny_bundle
from tests.fixtures.tiny_instances import bright_picture, write_things_bundle

RGB = colour_picture(32, 48)


@pytest.fixture(params=["BGR", "RGB"])
def runner(request: Any, tmp_path: Path) -> BundleRunner:
    path = write_tiny_bundle(tmp_path / "bundle", channel_order=request.param)
    return open_runner(path, "onnx")


def own_order(runner: BundleRunner, rgb: Any) -> Any:
    return rgb[:, :, ::-1] if runner.bundle.manifest.preprocess.channel_order == "BGR" else rgb


# --- one picture in every form ------------------------------------------------------------------


def test_every_form_of_a_picture_gives_the_same_labels(
    tmp_path: Path, runner: BundleRunner
) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(RGB).save(file)
    expected = runner(own_order(runner, RGB))["labels"]
    forms = [(RGB, "rgb"), (RGB[:, :, ::-1], "bgr"), (own_order(runner, RGB), None)]
    for color in (None, "rgb", "bgr"):  # no concern of pictures whose channels are known
        forms += [(file, color), (str(file), color), (Image.open(file), color)]
    for image, color in forms:
        assert np.array_equal(runner(image, color=color)["labels"], expected)
        assert np.array_equal(runner([image], color=color)["labels"][0], expected)
        assert np.array_equal(runner.predict_all([image], color)[0]["labels"], expected)
    other = "bgr" if runner.bundle.manifest.preprocess.channel_order == "RGB" else "rgb"
    assert not np.array_equal(runner(own_order(runner, RGB), color=other)["labels"], expected)


def test_a_list_may_mix_forms(tmp_path: Path, runner: BundleRunner) -> None:
    pictures = [colour_picture(20, 30, seed) for seed in range(3)]
    Image.fromarray(pictures[1]).save(tmp_path / "b.png")
    mixed = [pictures[0], tmp_path / "b.png", Image.fromarray(pictures[2])]
    expected = [runner(own_order(runner, each))["labels"] for each in pictures]
    for found, wanted in zip(runner(mixed, color="rgb")["labels"], expected, strict=True):
        assert np.array_equal(found, wanted)


def kinds() -> dict[str, tuple[Image.Image, str]]:
    """Pictures of every pixel type, each with a suffix that keeps it."""
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(RGB)))
    turned.info["exif"] = exif.tobytes()
    clear = image.convert("P")
    clear.info["transparency"] = 3
    return {
        "turned": (turned, ".png"),
        "grey": (image.convert("L"), ".png"),
        "grey and alpha": (image.convert("LA"), ".png"),
        "colours and alpha": (image.convert("RGBA"), ".png"),
        "palette": (image.convert("P"), ".png"),
        "palette, clear": (clear, ".png"),
        "one bit": (image.convert("1"), ".png"),
        "CMYK": (image.convert("CMYK"), ".tif"),
        "16 bits": (Image.fromarray(RGB[..., 0].astype(np.uint16) * 257), ".png"),
        "integers": (Image.fromarray(RGB[..., 0].astype(np.int32) * 200), ".tif"),
    }


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_pil_pictures_are_converted_as_files_are(tmp_path: Path, kind: str) -> None:
    image, suffix = kinds()[kind]
    file = tmp_path / f"a{suffix}"
    options = {"exif": image.info["exif"]} if "exif" in image.info else {}
    image.save(file, **options)
    before = image.copy()
    expected = read_picture(file).rgb
    assert np.array_equal(rgb_of(Image.open(file)), expected)
    assert np.array_equal(rgb_of(image), expected)
    assert image.mode == before.mode and image.tobytes() == before.tobytes()
    if kind == "turned":
        assert np.array_equal(expected, RGB) and image.size == (32, 48)


def test_what_is_no_picture_is_refused_in_words(tmp_path: Path, runner: BundleRunner) -> None:
    torn = tmp_path / "torn.png"
    Image.fromarray(colour_picture(200, 200)).save(torn)
    torn.write_bytes(torn.read_bytes()[:3000])
    closed = Image.open(torn)
    closed.close()
    for wrong, words in (
        (tmp_path / "none.png", "no such picture"),
        (str(tmp_path), "is a folder"),
        (torn, "torn.png is truncated or corrupt"),
        (Image.open(torn), "torn.png is truncated or corrupt"),
        (closed, "torn.png"),
        (Image.new("F", (4, 4)), "the PIL picture has pixels of type 'F'"),
        (Image.new("RGB", (0, 4)), "at least one pixel"),
        (RGB.astype(np.float32), "H x W x 3 uint8"),
        (RGB[:, :, 0], "H x W x 3 uint8"),
        (3, "an array, a file's path or a PIL picture, not int"),
    ):
        with pytest.raises(DeployError, match=words.replace("an array", "a numpy array")):
            runner(wrong)
    for color in ("RGB", "grb"):
        with pytest.raises(UsageError, match=f"color is 'rgb' or 'bgr', not '{color}'"):
            runner(RGB, color=color)


# --- names and drawings -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_the_drawing_is_the_overlay_of_a_run(tmp_path: Path, kind: str) -> None:
    write = write_tiny_bundle if kind == "semantic" else write_things_bundle
    runner = open_runner(write(tmp_path / "bundle"), "onnx")
    rgb = colour_picture(64, 96) if kind == "semantic" else bright_picture(64, 128, [0, 3])
    file = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(rgb))).save(file, exif=exif)
    run_pictures(runner, file, tmp_path / "out")
    written = (tmp_path / "out" / "overlays" / "a.jpg").read_bytes()
    for image, color in ((file, None), (Image.open(file), None), (rgb, "rgb")):
        drawn = runner(image, color=color).draw()
        assert isinstance(drawn, Image.Image) and drawn.mode == "RGB"
        assert picture_bytes(np.asarray(drawn), ".jpg") == written
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    for prediction in (runner(bgr), runner(bgr, color="bgr"), *runner.predict_all([bgr])):
        assert picture_bytes(np.asarray(prediction.draw()), ".jpg") == written
    assert picture_bytes(np.asarray(runner(bgr, color="rgb").draw()), ".jpg") != written


def test_the_least_score_to_draw(tmp_path: Path) -> None:
    runner = open_runner(write_things_bundle(tmp_path / "bundle"), "onnx")
    rgb = bright_picture(64, 128, [0, 3])
    Image.fromarray(rgb).save(tmp_path / "a.png")
    prediction = runner(tmp_path / "a.png")
    for above in (0.0, 0.9, 1.0):
        out = tmp_path / str(above)
        run_pictures(runner, tmp_path / "a.png", out, PictureOptions(draw_above=above))
        drawn = picture_bytes(np.asarray(prediction.draw(above)), ".jpg")
        assert drawn == (out / "overlays" / "a.jpg").read_bytes()
    with pytest.raises(UsageError, match=r"from 0 to 1; above is 1\.5"):
        prediction.draw(above=1.5)
    semantic = open_runner(write_tiny_bundle(tmp_path / "semantic"), "onnx")
    with pytest.raises(UsageError, match="no scores to draw by"):
        semantic(tmp_path / "a.png").draw(above=0.5)


def test_names_of_classes(tmp_path: Path) -> None:
    red = np.full((32, 48, 3), (250, 10, 10), np.uint8)
    prediction = open_runner(write_tiny_bundle(tmp_path / "s"), "onnx")(red, color="rgb")
    assert prediction.class_names == ("blue", "green", "red")
    assert {prediction.class_names[label] for label in prediction["labels"].flat} == {"red"}
    runner = open_runner(write_things_bundle(tmp_path / "i"), "onnx")
    prediction = runner(bright_picture(64, 128, [0, 1, 3]), color="rgb")
    found = prediction["instances"]
    assert prediction.class_names == ("cat", "traffic light", "bird")
    assert len(found) == 3 and sorted(found.class_names) == ["cat", "cat", "traffic light"]
    for number, one in enumerate(found):
        assert (
            one.class_name
            == found.class_names[number]
            == prediction.class_names[found.classes[number]]
        )
        assert one.class_number == found.classes[number] and one.score == found.scores[number]
        assert one.box == tuple(found.boxes[number].tolist())
        assert np.array_equal(one.mask, found.mask(number)) and one.mask.any()
    assert found[-1].score == found.scores[-1] == min(one.score for one in found)
    with pytest.raises(IndexError):
        found[3]


def test_drawing_a_picture_that_changed_is_refused(tmp_path: Path) -> None:
    runner = open_runner(write_tiny_bundle(tmp_path / "bundle"), "onnx")
    file = tmp_path / "a.png"
    Image.fromarray(RGB).save(file)
    prediction = runner(file)
    Image.fromarray(RGB[:20]).save(file)
    with pytest.raises(DeployError, match=r"was 32x48 when it was predicted, and is 20x48 now"):
        prediction.draw()
    file.unlink()
    with pytest.raises(DeployError, match="no such picture"):
        prediction.draw()
    alone = runner.finish({"labels": np.zeros((1, 32, 64), np.uint8)}, 0, runner.prepare(RGB))
    with pytest.raises(DeployError, match="does not know its picture"):
        alone.draw()


def test_predictions_can_be_sent_to_another_process(tmp_path: Path) -> None:
    for write in (write_tiny_bundle, write_things_bundle):
        runner = open_runner(write(tmp_path / write.__name__), "onnx")
        prediction = runner(RGB, color="rgb")
        again = pickle.loads(pickle.dumps(prediction))
        assert set(again) == set(prediction) and again.class_names == prediction.class_names
        assert again.draw().tobytes() == prediction.draw().tobytes()
