"""The quick reader of plain PNGs: the same pixels as Pillow's, or nothing."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data.images import read_label_png
from pseudolabel.data.png import read_plain_png
from pseudolabel.errors import DatasetError

LABELS = np.random.default_rng(0).integers(0, 256, (7, 5), dtype=np.uint8)


def save(path: Path, labels: np.ndarray = LABELS, *, colours: int = 256) -> Path:
    image = Image.fromarray(labels)
    if colours:
        image.putpalette(bytes(range(colours)) * 3)
    image.save(path)
    return path


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (1, 9), (9, 1), (300, 200)])
def test_palette_pngs_are_read_as_pillow_reads_them(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(1).integers(0, 22, shape, dtype=np.uint8)
    path = save(tmp_path / "a.png", labels)
    found = read_plain_png(path)
    assert found is not None
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.uint8
    found[0, 0] = 3  # the array is the caller's own


def test_pixels_in_several_chunks_are_joined(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    content = path.read_bytes()
    start = content.index(b"IDAT") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    pixels, rest = content[start + 8 : start + 8 + length], content[start + 12 + length :]
    parts = b"".join(chunk(b"IDAT", pixels[begin : begin + 4]) for begin in range(0, length, 4))
    path.write_bytes(content[:start] + parts + rest)
    np.testing.assert_array_equal(read_plain_png(path), LABELS)


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def test_filtered_rows_are_left_to_pillow(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(200, dtype=np.uint8), (50, 1))
    path = save(tmp_path / "grey.png", smooth, colours=0)  # Pillow filters grey rows
    assert read_plain_png(path) is None
    np.testing.assert_array_equal(read_label_png(path), smooth)


def test_pixels_of_fewer_than_eight_bits_are_left_to_pillow(tmp_path: Path) -> None:
    labels = LABELS % 4
    path = save(tmp_path / "a.png", labels, colours=4)  # Pillow takes two bits a pixel
    assert read_plain_png(path) is None
    np.testing.assert_array_equal(read_label_png(path), labels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_other_pictures_are_left_to_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (4, 3)).save(path)
    assert read_plain_png(path) is None


def test_every_cut_and_every_changed_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    labels = LABELS % 17
    path = save(tmp_path / "a.png", labels, colours=17)
    content = path.read_bytes()
    for length in range(len(content) - 12):  # the last chunk holds nothing
        path.write_bytes(content[:length])
        assert read_plain_png(path) is None
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        found = read_plain_png(path)
        assert found is None or np.array_equal(found, labels)


def test_a_file_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    content = path.read_bytes()
    start = content.index(b"IDAT") - 4
    bomb = chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    path.write_bytes(content[:start] + bomb + chunk(b"IEND", b""))
    assert read_plain_png(path) is None


def test_pictures_above_pillows_limit_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_plain_png(path) is None
    with pytest.raises(DatasetError, match="more than the limit"):
        read_label_png(path)


def test_missing_files_are_left_to_pillow(tmp_path: Path) -> None:
    assert read_plain_png(tmp_path / "none.png") is None
    assert read_plain_png(tmp_path) is None
