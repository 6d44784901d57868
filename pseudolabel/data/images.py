"""Photographs as 8-bit RGB arrays, label maps as class indices, and clear words for every file that is neither.

A photograph may be of any format of ``image_files.FORMATS`` (of several frames, the first); ``samples`` says what
becomes of other samples than 8-bit RGB. EXIF orientation is applied, as every viewer does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from pseudolabel.data.decoding import AS_USUAL, Decoding, Look
from pseudolabel.data.image_files import FORMATS, opened
from pseudolabel.data.png import read_plain_png
from pseudolabel.data.samples import to_rgb
from pseudolabel.errors import DatasetError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_said: set[str] = set()  # what this process has warned of


def read_image(path: Path, decoding: Decoding = AS_USUAL) -> np.ndarray:
    """Read a photograph, upright. The first time that the decoders warn of something, one line on stderr says so.

    Args:
        path: A file of one of ``FORMATS``.
        decoding: How alpha and 16-bit samples are taken.

    Returns:
        uint8 (H, W, 3), RGB, 0-255.

    Raises:
        DatasetError: The file is missing, no regular file, empty, truncated, corrupt, too large, or no image; the
            message names it.
    """
    image, look = look_at(path, decoding)
    _say(path, look.remarks)
    return image


def look_at(path: Path, decoding: Decoding) -> tuple[np.ndarray, Look]:
    """As ``read_image``, with what there is to remark on the file, of which nothing is printed."""
    remarks: list[str] = []
    with opened(path, FORMATS, remarks) as image:
        turn = _turn(image)  # before decoding: Pillow could find a PNG's orientation again behind the pixels
        rgb, look = to_rgb(path, image, decoding)
        pixels = np.array(rgb if turn is None else rgb.transpose(turn))
    return pixels, look._replace(remarks=(*look.remarks, *remarks))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a photograph as ``read_image`` returns it, from the file's header alone.

    Raises:
        DatasetError: As ``read_image``, as far as the header shows it.
    """
    remarks: list[str] = []
    with opened(path, FORMATS, remarks) as image:
        width, height = image.size
        turn = _turn(image)
    _say(path, remarks)
    return (width, height) if turn in _SIDEWAYS else (height, width)


def turns(path: Path) -> bool:
    """Whether a photograph's EXIF orientation swaps its sides.

    Raises:
        DatasetError: As ``image_size``.
    """
    with opened(path, FORMATS, []) as image:
        return _turn(image) in _SIDEWAYS


def read_label_png(path: Path) -> np.ndarray:
    """Read a label map.

    Args:
        path: An 8-bit palette or grey PNG whose values are class indices.

    Returns:
        uint8 (H, W): the stored values; a palette's colours play no part.

    Raises:
        DatasetError: The file is unreadable, no PNG, or holds colours instead of indices; the message names it.
    """
    plain = read_plain_png(path)
    if plain is not None:
        return plain
    remarks: list[str] = []
    with opened(path, ("PNG",), remarks) as image:
        if image.mode == "P" or (image.mode == "L" and image.tile and image.tile[0][3] == "L"):
            return np.array(image)
        raise DatasetError(f"{path} is {_kind(image)}; wanted class indices: an 8-bit palette or grey PNG")


def _say(path: Path, remarks: Iterable[str]) -> None:
    """Warn of a remark of the decoders, unless this process has warned of one that is alike."""
    for remark in remarks:
        if kind_of(remark) not in _said:
            said_already([remark])
            print(f"warning: {path}: {remark} (said once; data check counts such files)", file=sys.stderr)


def kind_of(remark: str) -> str:
    """A remark of the decoders without its numbers, by which those that are alike are told."""
    return re.sub(r"\d+", "", remark)


def said_already(remarks: Iterable[str]) -> None:
    """Let reading say nothing of such remarks in this process, and in those that are forked from it."""
    _said.update(map(kind_of, remarks))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image upright, from what stands before the pixels; Pillow turns TIFF files by itself."""
    if image.format == "TIFF":
        return None
    exif = Image.Image.getexif(image)  # the PNG reader's own getexif decodes the whole file
    return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))


def _kind(image: Image.Image) -> str:
    if image.mode == "L":
        return "a grey PNG of fewer than 8 bits, whose values Pillow rescales"
    if image.mode.startswith("I"):
        return "a picture of more than 8 bits"
    known = {"RGB": "an RGB picture", "RGBA": "an RGBA picture", "1": "a black-and-white picture of 1 bit"}
    return known.get(image.mode, f"a picture of Pillow's mode {image.mode!r}")
