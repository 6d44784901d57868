"""Photographs as 8-bit RGB arrays, label maps as class indices, and clear words for every file that is neither.

A photograph may be JPEG, PNG, WebP or TIFF (of several frames, the first). Grey, palette, CMYK and 16-bit ones (whose
high byte is kept) become 8-bit RGB. Transparent pixels are composited on white, as on a page, since the colours
hidden below them are arbitrary. EXIF orientation is applied, as every viewer does.

Pillow refuses a file of more than 178,956,970 pixels before it decodes anything, so that a small file cannot fill the
memory.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from pseudolabel.data.png import read_plain_png
from pseudolabel.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
"""Endings, in lower case, of the files that count as photographs."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # nothing else is even tried: some of Pillow's readers start other programs
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
_MAGIC = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"II", b"MM")  # how files of _FORMATS begin; PNG first
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, MemoryError)  # what Pillow raises


def read_image(path: Path) -> np.ndarray:
    """Read a photograph, upright.

    Args:
        path: A JPEG, PNG, WebP or TIFF file.

    Returns:
        uint8 (H, W, 3), RGB, 0-255.

    Raises:
        DatasetError: The file is missing, empty, truncated, corrupt, too large, or no image; the message names it.
    """
    with _opened(path, _FORMATS) as image:
        turn = _turn(image)  # before decoding: Pillow could find a PNG's orientation again behind the pixels
        rgb = image if image.mode == "RGB" and "transparency" not in image.info else _to_rgb(path, image)
        return np.array(rgb if turn is None else rgb.transpose(turn))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a photograph as ``read_image`` returns it, from the file's header alone.

    Raises:
        DatasetError: As ``read_image``, as far as the header shows it.
    """
    with _opened(path, _FORMATS) as image:
        width, height = image.size
        turn = _turn(image)
        return (width, height) if turn in _SIDEWAYS else (height, width)


def turns(path: Path) -> bool:
    """Whether a photograph's EXIF orientation swaps its sides.

    Raises:
        DatasetError: As ``image_size``.
    """
    with _opened(path, _FORMATS) as image:
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
    with _opened(path, ("PNG",)) as image:
        if image.mode == "P" or (image.mode == "L" and image.tile and image.tile[0][3] == "L"):
            return np.array(image)
        raise DatasetError(f"{path} is {_kind(image)}; wanted class indices: an 8-bit palette or grey PNG")


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    except Image.DecompressionBombError as error:
        counts = re.findall(r"\d+", str(error))
        found = f"has {counts[0]} pixels, more than the limit of {counts[1]}" if len(counts) > 1 else str(error)
        raise DatasetError(f"{path} {found}; make it smaller or remove it") from error
    except _BROKEN as error:
        raise DatasetError(f"{path} {_cause(path, formats, error)}") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image upright, from what stands before the pixels; Pillow turns TIFF files by itself."""
    if image.format == "TIFF":
        return None
    exif = Image.Image.getexif(image)  # the PNG reader's own getexif decodes the whole file
    return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DatasetError(f"{path} has 32-bit samples, whose range nobody states; save it with 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _kind(image: Image.Image) -> str:
    if image.mode == "L":
        return "a grey PNG of fewer than 8 bits, whose values Pillow rescales"
    if image.mode.startswith("I"):
        return "a picture of more than 8 bits"
    known = {"RGB": "an RGB picture", "RGBA": "an RGBA picture", "1": "a black-and-white picture of 1 bit"}
    return known.get(image.mode, f"a picture of Pillow's mode {image.mode!r}")


def _cause(path: Path, formats: tuple[str, ...], error: Exception) -> str:
    """Why a file could not be read, as the end of a sentence that its path begins."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.strerror:  # of the operating system, not of Pillow
        return f"cannot be opened: {error.strerror}"
    if path.stat().st_size == 0:
        return "is empty (0 bytes); replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            begin = file.read(8)
        if begin.startswith(_MAGIC[: len(formats)]):
            return "is corrupt: its header cannot be read; replace or remove it"
        wanted = "JPEG, PNG, WebP or TIFF image" if len(formats) > 1 else "PNG"
        return f"is no {wanted} (it begins with {begin!r}); replace or remove it"
    if "truncated" in str(error).lower():
        return "is truncated; replace or remove it"
    return f"is corrupt ({error}); replace or remove it".replace("\n", " ")
