"""Photographs and label maps: every kind of file becomes 8-bit RGB or indices, or is refused in one clear line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data.image_files import NAMES
from pseudolabel.data.images import image_size, read_image, read_label_png
from pseudolabel.errors import DatasetError

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
PIXELS = np.array([[RED, GREEN, BLUE], [[10, 20, 30], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8)  # (2, 3, 3)
FLIPPED, TURNED, UPSIDE_DOWN = PIXELS[:, ::-1], PIXELS[::-1, ::-1], PIXELS[::-1]
ACROSS = PIXELS.transpose(1, 0, 2)
UPRIGHT = {  # by EXIF orientation, from the standard's "row 0 is at the ..., column 0 at the ..."
    1: PIXELS,
    2: FLIPPED,
    3: TURNED,
    4: UPSIDE_DOWN,
    5: ACROSS,
    6: ACROSS[:, ::-1],
    7: ACROSS[::-1, ::-1],
    8: ACROSS[::-1],
}


def save(path: Path, array: np.ndarray = PIXELS, mode: str | None = None, **how: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **how)
    return path


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def save_png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> Path:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    )
    return path


def refused(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize(
    ("name", "how"), [("a.png", {}), ("a.webp", {"lossless": True}), ("a.TIFF", {"format": "TIFF"})]
)
def test_lossless_formats_keep_every_pixel(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    path = save(tmp_path / name, **how)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, PIXELS)
    assert image_size(path) == (2, 3)


def test_jpeg(tmp_path: Path) -> None:
    flat = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", flat, quality=95)
    assert np.abs(read_image(path).astype(int) - flat).max() <= 2  # JPEG rounds its frequencies
    assert image_size(path) == (16, 24)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("name", "how"), [("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {})])
def test_exif_orientation_is_applied_to_pixels_and_size(
    tmp_path: Path, orientation: int, name: str, how: dict[str, object]
) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / name, exif=exif, **how)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation])
    assert image_size(path) == UPRIGHT[orientation].shape[:2]


def test_exif_orientation_of_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, :16] = 255
    path = save(tmp_path / "a.jpg", halves, exif=exif, quality=95)
    image = read_image(path)
    assert image.shape == (32, 16, 3)
    assert image[:14].min() > 250  # the left half has become the upper one
    assert image[18:].max() < 5
    assert image_size(path) == (32, 16)


def test_orientation_behind_the_pixels_of_a_png_counts_neither_for_pixels_nor_for_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    data = save(tmp_path / "plain.png").read_bytes()
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = tmp_path / "late.png"
    path.write_bytes(data[:-12] + late + data[-12:])  # before the IEND chunk, after the pixels
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert image_size(path) == (2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    image = read_image(path)
    assert image.shape == (2, 3, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[1, 1:], [[0, 0, 0], [255, 255, 255]])


def test_grey_and_palette_and_cmyk_values(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey.png", PIXELS[..., 0])
    np.testing.assert_array_equal(read_image(grey), np.repeat(PIXELS[..., :1], 3, axis=2))
    palette = save(tmp_path / "palette.png", mode="P")
    assert Image.open(palette).mode == "P"
    cmyk = save(tmp_path / "cmyk.tif", mode="CMYK")
    np.testing.assert_array_equal(read_image(cmyk), PIXELS)
    photograph = save(tmp_path / "cmyk.jpg", np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8), "CMYK", quality=95)
    assert Image.open(photograph).mode == "CMYK"
    assert np.abs(read_image(photograph).astype(int) - (200, 100, 50)).max() <= 4  # JPEG, four channels


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_keeps_the_high_byte(tmp_path: Path, name: str) -> None:
    deep = np.array([[0, 255, 256], [0x1234, 0xFEFF, 0xFFFF]], dtype=np.uint16)
    image = read_image(save(tmp_path / name, deep))
    np.testing.assert_array_equal(image[..., 0], [[0, 0, 1], [0x12, 0xFE, 0xFF]])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_transparent_pixels_are_seen_on_white(tmp_path: Path) -> None:
    layer = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    on_white = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", layer)), on_white)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.webp", layer, lossless=True, exact=True)), on_white)
    keyed = save(tmp_path / "key.png", transparency=(255, 0, 0))
    np.testing.assert_array_equal(read_image(keyed)[0], [[255, 255, 255], GREEN, BLUE])


def test_first_frame_of_several(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    Image.fromarray(PIXELS).save(path, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    np.testing.assert_array_equal(read_image(path), PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (10, 20_000), (20_000, 10)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", np.zeros((*size, 3), dtype=np.uint8))
    assert read_image(path).shape == (*size, 3)
    assert image_size(path) == size


def test_bad_files_are_named_with_their_cause(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "head.png").write_bytes(whole.read_bytes()[:12])
    jpeg = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "short.jpg").write_bytes(jpeg.read_bytes()[:-900])
    (tmp_path / "short.png").write_bytes(whole.read_bytes()[:-900])
    expected = {
        "none.jpg": "does not exist",
        "empty.jpg": "is empty (0 bytes); replace or remove it",
        "text.jpg": f"is no {NAMES} image (it begins with b'not a pi'); replace or remove it",
        "folder.jpg": "cannot be opened: Is a directory",
        "loop.png": "cannot be opened: Too many levels of symbolic links",
        "head.png": "is corrupt: its header cannot be read; replace or remove it",
        "short.jpg": "is truncated; replace or remove it",
        "short.png": "is truncated; replace or remove it",
    }
    assert {name: refused(read_image, tmp_path / name) for name in expected} == expected
    assert refused(image_size, tmp_path / "text.jpg") == expected["text.jpg"]
    assert refused(read_label_png, tmp_path / "loop.png") == expected["loop.png"]


def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = save_png(tmp_path / "bomb.png", 20_000, 20_000, 8, 2, b"")
    wanted = "has 400000000 pixels, more than the limit of 178956970; make it smaller or remove it"
    assert refused(read_image, path) == wanted
    assert refused(image_size, path) == wanted
    assert refused(read_label_png, path) == wanted


def test_samples_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "float.tif", np.zeros((4, 4), dtype=np.float32))
    assert refused(read_image, path) == "has 32-bit samples, whose range nobody states; save it with 8 or 16 bits"


def test_label_png_of_indices(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 20], [255, 7, 0]], dtype=np.uint8)
    grey = save(tmp_path / "grey.png", labels)
    np.testing.assert_array_equal(read_label_png(grey), labels)
    image = Image.fromarray(labels)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_label_png(tmp_path / "palette.png"), labels)
    few = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8))
    few.putpalette([0, 0, 0, 128, 0, 0])
    few.save(tmp_path / "one-bit.png", bits=1)
    np.testing.assert_array_equal(read_label_png(tmp_path / "one-bit.png"), [[0, 1], [1, 0]])


def test_label_png_refuses_colours_and_other_depths(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    save(tmp_path / "rgb.png")
    save(tmp_path / "rgba.png", mode="RGBA")
    save(tmp_path / "bits.png", grey, "1")
    save(tmp_path / "deep.png", grey.astype(np.uint16))
    save(tmp_path / "photo.jpg", np.zeros((8, 8), dtype=np.uint8))
    (tmp_path / "empty.png").touch()
    save_png(tmp_path / "two-bit.png", 4, 1, 2, 0, b"\0\x1b")  # four grey pixels: 0 1 2 3
    wanted = "; wanted class indices: an 8-bit palette or grey PNG"
    expected = {
        "rgb.png": "is an RGB picture" + wanted,
        "rgba.png": "is an RGBA picture" + wanted,
        "bits.png": "is a black-and-white picture of 1 bit" + wanted,
        "deep.png": "is a picture of more than 8 bits" + wanted,
        "two-bit.png": "is a grey PNG of fewer than 8 bits, whose values Pillow rescales" + wanted,
        "empty.png": "is empty (0 bytes); replace or remove it",
    }
    assert {name: refused(read_label_png, tmp_path / name) for name in expected} == expected
    assert refused(read_label_png, tmp_path / "photo.jpg") == (
        "is a JPEG, whose lossy compression alters class indices; make the labels anew as 8-bit PNG, since converting "
        "this file does not bring them back"
    )
