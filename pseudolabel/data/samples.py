"""From the samples of a photograph to 8-bit RGB: what becomes of alpha, and which value is white.

Grey, palette and CMYK become RGB. Transparent pixels are composited on white, as on a page, since the colours hidden
below them are arbitrary; where alpha is data, such as near infrared, it can be dropped. Of 16-bit samples the high byte
is kept, unless their largest value is stated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from pseudolabel.data.decoding import Decoding, Look
from pseudolabel.data.deep_samples import bits_of_jpeg_2000, deep_samples, is_deep, keep_stored, raw_mode
from pseudolabel.errors import DatasetError

_CUT = (
    "of its 16 bits a band Pillow keeps the high byte; if its values need fewer bits, save it as PNG or TIFF with 16 "
    "and pass --photo-range"
)


def to_rgb(path: Path, image: ImageFile.ImageFile, decoding: Decoding) -> tuple[Image.Image, Look]:
    """The picture in 8-bit RGB, not yet turned upright.

    Raises:
        DatasetError: Nobody states the range of its samples, or Pillow would misread them.
    """
    if decoding.alpha == "drop":
        keep_stored(image)
    if is_deep(image):
        return _from_deep(path, image, decoding)
    if image.mode in ("I", "F"):
        raise DatasetError(f"{path} has 32-bit samples, whose range nobody states; save it with 8 or 16 bits")
    remarks = (_CUT,) if image.format == "JPEG2000" and bits_of_jpeg_2000(path) == 16 else ()
    if not image.has_transparency_data:
        return image.convert("RGB"), Look(remarks=remarks)
    picture, alpha = _flat(image.convert("RGBA"), decoding)
    return picture, Look(alpha, remarks=remarks)


def _flat(layer: Image.Image, decoding: Decoding) -> tuple[Image.Image, str]:
    """An RGBA picture without its alpha, and how much of it compositing changed."""
    if decoding.alpha == "drop":
        return layer.convert("RGB"), "none"
    low, high = layer.getchannel("A").getextrema()
    page = Image.new("RGBA", layer.size, "white")
    picture = Image.alpha_composite(page, layer).convert("RGB")
    return picture, "none" if low == 255 else "some" if high else "all"


def _from_deep(path: Path, image: ImageFile.ImageFile, decoding: Decoding) -> tuple[Image.Image, Look]:
    """As ``to_rgb``, of 16-bit samples."""
    premultiplied = "RGBa" in raw_mode(image)
    samples, mode = deep_samples(path, image)
    colours = samples[..., : 1 if mode in ("L", "LA") else 3] if mode != "CMYK" else samples
    largest = int(colours.max())
    if decoding.largest is None:
        small = (samples >> 8).astype(np.uint8)
    else:
        clipped = np.minimum(samples, decoding.largest).astype(np.uint32)
        small = ((clipped * 255 + decoding.largest // 2) // decoding.largest).astype(np.uint8)
    key = image.info.get("transparency")
    if key is not None and mode in ("L", "RGB"):
        hidden = (samples == np.asarray(key)).all(axis=2, keepdims=True)
        small = np.concatenate([small, np.where(hidden, 0, 255).astype(np.uint8)], axis=2)
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    if premultiplied and decoding.alpha == "composite":
        opaque = small[..., 3:]
        alpha = "none" if opaque.min() == 255 else "some" if opaque.max() else "all"
        on_white = np.minimum(small[..., :3].astype(np.uint16) + 255 - opaque, 255).astype(np.uint8)
        return Image.fromarray(on_white), Look(alpha, largest)
    picture = Image.frombytes(mode, (small.shape[1], small.shape[0]), small.tobytes())
    if mode not in ("LA", "RGBA"):
        return picture.convert("RGB"), Look(largest=largest)
    flat, alpha = _flat(picture.convert("RGBA"), decoding)
    return flat, Look(alpha, largest)
