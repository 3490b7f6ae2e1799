"""Reading pictures: every kind of file a user has comes out as upright RGB, or as a clear error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pointrend_deploy.errors import DeployError
from pointrend_deploy.pictures import files as source
from pointrend_deploy.pictures.files import list_pictures, read_picture, sub_folders
from tests.fixtures.tiny_bundle import colour_picture

RGB = colour_picture(24, 36)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def refused(path: Path) -> DeployError:
    with pytest.raises(DeployError) as caught:
        read_picture(path)
    assert str(path) in caught.value.message
    return caught.value


# --- EXIF ---------------------------------------------------------------------------------------

STORED = {  # how the sensor stored a picture that is shown upright with this orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](RGB))
    path = saved(tmp_path / "turned.png", Image.fromarray(stored), exif=exif)
    assert np.array_equal(read_picture(path).rgb, RGB)
    if orientation > 1:  # the test can tell: the stored pixels alone are another picture
        with Image.open(path) as raw:
            assert not np.array_equal(np.asarray(raw), RGB)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(RGB, 1)))
    path = saved(tmp_path / "phone.jpg", stored, exif=exif, quality=98, subsampling=0)
    rgb = read_picture(path).rgb
    assert rgb.shape == RGB.shape
    assert np.abs(rgb.astype(int) - RGB).max() <= 12


# --- pixel types --------------------------------------------------------------------------------


def test_rgb_comes_back_byte_for_byte(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(RGB)))
    assert picture.path == tmp_path / "a.png"
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.flags.writeable
    assert np.array_equal(picture.rgb, RGB)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    path = saved(tmp_path / "red.png", Image.new("RGB", (2, 1), (250, 20, 3)))
    assert read_picture(path).rgb[0, 0].tolist() == [250, 20, 3]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_grey_is_repeated(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"grey.{suffix}", Image.new("L", (3, 2), 77))
    assert np.array_equal(read_picture(path).rgb, np.full((2, 3, 3), 77))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    rgb = read_picture(saved(tmp_path / "bits.png", bits)).rgb
    assert rgb[:, :, 0].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped_not_blended(tmp_path: Path, alpha: int) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], alpha, np.uint8)])
    assert np.array_equal(read_picture(saved(tmp_path / "a.png", Image.fromarray(rgba))).rgb, RGB)
    grey = Image.fromarray(np.full((2, 2, 2), (60, alpha), np.uint8), "LA")
    assert (read_picture(saved(tmp_path / "la.png", grey)).rgb == 60).all()


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([9, 8, 7, 100, 150, 200, 255, 0, 1])
    plain = saved(tmp_path / "plain.png", image)
    clear = saved(tmp_path / "clear.png", image, transparency=b"\x00\x80\xff")
    expected = [[[9, 8, 7], [100, 150, 200]], [[255, 0, 1], [100, 150, 200]]]
    assert read_picture(plain).rgb.tolist() == expected
    assert read_picture(clear).rgb.tolist() == expected


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert np.array_equal(read_picture(saved(tmp_path / "c.tif", cmyk)).rgb, RGB)
    path = saved(tmp_path / "c.jpg", cmyk, quality=98)
    assert np.abs(read_picture(path).rgb.astype(int) - RGB).mean() < 4


def test_adobe_inverted_cmyk_jpeg(tmp_path: Path) -> None:
    # such files hold 255 - ink; another decoder must see the same colours, and white be white
    patches = Image.fromarray(np.repeat(np.repeat(RGB[::6, ::6], 16, axis=0), 16, axis=1))
    path = saved(tmp_path / "ink.jpg", patches.convert("CMYK"), quality=95, subsampling=0)
    assert b"Adobe" in path.read_bytes()
    other = cv2.imread(str(path), cv2.IMREAD_COLOR_BGR)
    assert other is not None
    assert np.abs(read_picture(path).rgb.astype(int) - other[:, :, ::-1]).max() <= 3
    white = saved(tmp_path / "white.jpg", Image.new("CMYK", (8, 8), (0, 0, 0, 0)))
    assert read_picture(white).rgb.min() > 250


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_divided_by_257(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 128, 129, 257], [32767, 32896, 65406, 65535]], np.uint16)
    assert cv2.imwrite(str(tmp_path / f"wide.{suffix}"), wide)
    rgb = read_picture(tmp_path / f"wide.{suffix}").rgb
    assert rgb[:, :, 0].tolist() == [[0, 0, 1, 1], [127, 128, 254, 255]]
    assert (rgb == rgb[:, :, :1]).all()


def test_16_bit_big_endian_tiff_with_orientation(tmp_path: Path) -> None:
    wide = Image.fromarray(np.array([[0, 65535]], ">u2"))
    exif = Image.Exif()
    exif[0x0112] = 3
    path = saved(tmp_path / "big.tif", wide, exif=exif)
    assert read_picture(path).rgb[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    wide = RGB.astype(np.uint16) << 8 | 0x5A
    assert cv2.imwrite(str(tmp_path / f"wide.{suffix}"), wide[:, :, ::-1])
    assert np.array_equal(read_picture(tmp_path / f"wide.{suffix}").rgb, RGB)


def test_pixels_without_a_fixed_range_are_refused(tmp_path: Path) -> None:
    error = refused(saved(tmp_path / "f.tif", Image.fromarray(np.ones((2, 2), np.float32))))
    assert "'F'" in error.message and "8 bits" in error.hint
    error = refused(saved(tmp_path / "i.tif", Image.fromarray(np.full((2, 2), 70000, np.int32))))
    assert "70000" in error.message
    refused(saved(tmp_path / "lab.tif", Image.new("LAB", (2, 2))))


@pytest.mark.parametrize("size", [(1, 1), (50, 1), (1, 50)])
def test_pictures_one_pixel_high_or_wide(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "thin.png", Image.new("RGB", size, (1, 2, 3)))
    assert read_picture(path).rgb.shape == (size[1], size[0], 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read_picture(path).rgb == (255, 0, 0)).all()


# --- broken files -------------------------------------------------------------------------------


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.jpg", Image.fromarray(colour_picture(200, 200)))
    data = path.read_bytes()
    read_picture(path)
    path.write_bytes(data[: len(data) // 2])
    error = refused(path)
    assert "truncated" in error.message
    assert error.hint


def test_empty_file_text_file_folder_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture at all")
    (tmp_path / "folder.jpg").mkdir()
    assert "0 bytes" in refused(tmp_path / "empty.jpg").message
    assert "not a picture" in refused(tmp_path / "text.jpg").message
    assert "folder" in refused(tmp_path / "folder.jpg").message
    assert "no such" in refused(tmp_path / "missing.jpg").message


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg")


def test_what_the_system_says_is_passed_on(tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(RGB))

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", deny)
    error = refused(path)
    assert "Permission denied" in error.message and "corrupt" not in error.message


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_decompression_bomb(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb_png(60000, 60000))
    assert "too large" in refused(tmp_path / "bomb.png").message


def test_own_limit_holds_where_pillow_has_none(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(bomb_png(60000, 60000))
    assert "too large" in refused(tmp_path / "bomb.png").message


def test_no_memory_is_said_plainly(tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(RGB))

    def starve(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(source, "_decode", starve)
    assert "memory" in refused(path).message


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    return buffer.getvalue()


INTACT = {kind: encoded(kind) for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(sorted(INTACT)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_end_in_a_picture_or_a_deploy_error(
    tmp_path: Path, kind: str, cut: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(INTACT[kind])
    for where, value in changes:
        data[min(int(where * len(data)), len(data) - 1)] = value
    path = tmp_path / "damaged.bin"
    path.write_bytes(data[: int(cut * len(data)) + 1])
    try:
        rgb = read_picture(path).rgb
    except DeployError as error:
        assert str(path) in error.message
    else:
        assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.txt", ".hidden.png", "._a.png", "sub/d.tif", "sub/.e/f.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_pictures_of_a_folder_are_sorted_and_not_of_its_sub_folders(folder: Path) -> None:
    assert list_pictures(folder) == [folder / "a.png", folder / "b.JPG"]
    assert sub_folders(folder) == [folder / "sub"]


def test_recursive_enters_sub_folders_but_not_hidden_ones(folder: Path) -> None:
    found = list_pictures(folder, recursive=True)
    assert found == [folder / "a.png", folder / "b.JPG", folder / "sub" / "d.tif"]


def test_a_file_stands_for_itself_whatever_its_name(folder: Path) -> None:
    assert list_pictures(folder / "c.txt") == [folder / "c.txt"]
    assert sub_folders(folder / "c.txt") == []


def test_empty_folder_and_missing_path(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(DeployError, match="sub-folders not looked into: 1") as caught:
        list_pictures(tmp_path)
    assert ".jpg" in caught.value.hint
    with pytest.raises(DeployError, match="no picture in the folder"):
        list_pictures(tmp_path / "inner")
    with pytest.raises(DeployError, match="no such picture or folder"):
        list_pictures(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: Any) -> None:
    def deny(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DeployError, match="Permission denied"):
        list_pictures(folder)


def test_a_broken_link_is_listed_and_then_refused(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "elsewhere.png")
    assert list_pictures(tmp_path) == [tmp_path / "gone.png"]
    assert "no such picture" in refused(tmp_path / "gone.png").message
