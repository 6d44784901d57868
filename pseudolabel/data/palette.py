"""Label maps as palette PNG files that look right in any viewer."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.lists import unsafe
from pseudolabel.errors import InputError


def voc_palette() -> np.ndarray:
    """The colours of PASCAL VOC's masks, by the bit rule of its development kit: uint8 (256, 3).

    Bits 0, 1 and 2 of a class index, then 3, 4 and 5, and so on fill the channels from their highest bit down, so that
    every index has its own colour; 255, unlabelled, comes out as VOC's cream.
    """
    index = np.arange(256)[:, None] >> np.arange(3)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for step in range(8):
        colours |= ((index >> 3 * step & 1) << 7 - step).astype(np.uint8)
    return colours


PALETTE = voc_palette()


def mask_path(folder: Path, name: str) -> Path:
    """Where the PNG of an image lies: ``folder/name.png``, with subfolders where its id has ``/``.

    Raises:
        InputError: The id could lead out of the folder.
    """
    if complaint := unsafe(name):
        raise InputError(f"image id {name!r} {complaint}; no file of that name is written into {folder}")
    return folder / f"{name}.png"


def write_mask(path: Path, labels: np.ndarray) -> None:
    """Write a label map as an 8-bit palette PNG whose indices are the labels.

    Args:
        path: The file; it appears complete or not at all.
        labels: uint8 (H, W), 255 = unlabelled.
    """
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(PALETTE.tobytes())
    # Masks are runs of one value: of zlib's ways the one for runs is twice as fast as the default and nearly as small.
    write_png(path, image, compress_type=zlib.Z_RLE)


def write_png(path: Path, image: Image.Image, **how: int) -> None:
    """Write a picture into a neighbouring file, then rename it, so that a PNG that exists is complete."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            image.save(file, format="PNG", **how)
