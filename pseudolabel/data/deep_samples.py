"""Samples of 16 bits, of which Pillow keeps one byte where there are several bands."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFile

from pseudolabel.data.image_files import FORMATS, opened
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import open_regular

_DEEP = re.compile(r";16[BLN]$")
_CODESTREAM, _BITS_BEHIND = b"\xff\x4f\xff\x51", 42  # of JPEG 2000: its markers SOC and SIZ, and how far on
_BITS, _PLANAR = 258, 284  # TIFF's tags BitsPerSample and PlanarConfiguration


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether samples have 16 bits, as far as the header says."""
    if image.mode == "I":
        return image.format in ("PNG", "PPM")
    if image.mode == "RGB" and image.format == "PPM":
        return [tile.args for tile in image.tile if tile.codec_name == "ppm"] == [("RGB", 65535)]
    return image.mode.startswith("I;16") or bool(_DEEP.search(raw_mode(image))) or _is_deep_planar(image)


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's word for how the samples are stored; empty where it has none."""
    args = image.tile[0].args if image.tile else ""
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def _is_deep_planar(image: ImageFile.ImageFile) -> bool:
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return image.mode not in ("L", "P") and tags.get(_PLANAR) == 2 and 16 in np.atleast_1d(tags.get(_BITS, 0))


def keep_stored(image: ImageFile.ImageFile) -> None:
    """Let a TIFF's colours stay as they are stored, where they count as multiplied by its alpha."""
    image.tile = [
        tile._replace(args=(tile.args[0].replace("RGBa", "RGBA"), *tile.args[1:]))
        if isinstance(tile.args, tuple) and tile.args and isinstance(tile.args[0], str)
        else tile
        for tile in image.tile
    ]


def deep_samples(path: Path, image: ImageFile.ImageFile) -> tuple[np.ndarray, str]:
    """The samples, uint16 (H, W, bands), and the mode that such a picture of 8 bits has.

    Pillow keeps one byte of samples in several bands, and reads which one off the order of bytes that the file is said
    to have. Read in either order, the file gives both.

    Args:
        path: The file.
        image: The same, opened, with 16 bits by ``is_deep``.

    Raises:
        DatasetError: Pillow would misread them, or the file is truncated.
    """
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[..., None], "L"
    if image.format == "TIFF" and _is_deep_planar(image):
        raise DatasetError(
            f"{path} stores each band of 16 bits on its own, which Pillow misreads; save it with its bands interleaved"
        )
    if image.format == "PPM":
        with open_regular(path) as file:
            file.seek(image.tile[0].offset)
            content = file.read(image.width * image.height * 6)
        if len(content) < image.width * image.height * 6:
            raise DatasetError(f"{path} is truncated; replace or remove it")
        return np.frombuffer(content, dtype=">u2").reshape(image.height, image.width, 3).astype(np.uint16), "RGB"
    raw = raw_mode(image)
    keep_stored(image)
    if raw == "LA;16B":  # there is no other order of it; as four bands of 8 bits it gives all four bytes
        image._mode, image.tile = "RGBA", [tile._replace(args="RGBA") for tile in image.tile]
        pairs = np.asarray(image).astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2], "LA"
    with opened(path, FORMATS, []) as again:
        keep_stored(again)
        again.tile = [tile._replace(args=_other_order(tile.args)) for tile in again.tile]
        low = np.asarray(again).astype(np.uint16)
    high = np.asarray(image).astype(np.uint16)
    return high << 8 | low, image.mode


def bits_of_jpeg_2000(path: Path) -> int:
    """The bits of a JPEG 2000's first band, as its codestream says; 0 where that is not found."""
    with open_regular(path) as file:
        head = file.read(1 << 16)
    place = head.find(_CODESTREAM)
    return (head[place + _BITS_BEHIND] & 0x7F) + 1 if 0 <= place < len(head) - _BITS_BEHIND else 0


def _other_order(args: Any) -> Any:
    """A tile's arguments with its 16-bit raw mode in the other order of bytes; libtiff hands on the machine's own."""
    if isinstance(args, tuple):
        return (_other_order(args[0]), *args[1:])
    order = {"little": "L", "big": "B"}[sys.byteorder] if args[-1] == "N" else args[-1]
    return args[:-1] + ("B" if order == "L" else "L")
