"""From the samples of a photograph to 8-bit RGB: what becomes of alpha, and which value is white.

Grey, palette and CMYK become RGB. Transparent pixels are composited on white, as on a page, since the colours hidden
below them are arbitrary; where alpha is data, such as near infrared, it can be dropped. Of 16-bit samples the high byte
is kept, unless their largest value is stated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from pseudolabel.data.image_files import FORMATS, opened
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import open_regular

_DEEP = re.compile(r";16[BLN]$")
_CODESTREAM, _BITS_BEHIND = b"\xff\x4f\xff\x51", 42  # of JPEG 2000: markers SOC and SIZ; where SIZ has them
_CUT = (
    "of its 16 bits a band Pillow keeps the high byte; if its values need fewer bits, save it as PNG or TIFF of 16 bits "
    "and pass --photo-range"
)
_BITS, _PLANAR = 258, 284  # TIFF's tags BitsPerSample and PlanarConfiguration


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the photographs of a data set become 8-bit RGB.

    Attributes:
        alpha: ``composite`` on white, or ``drop``.
        largest: The value of 16-bit samples that becomes 255; None keeps their high byte.
    """

    alpha: str = "composite"
    largest: int | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Decoding:
        """As options or a stored data set say it.

        Raises:
            DatasetError: They say something else.
        """
        alpha, largest = spec.get("alpha", "composite"), spec.get("photo_range")
        if alpha not in ("composite", "drop"):
            raise DatasetError(f"alpha is {alpha!r:.40}; wanted composite or drop")
        if largest is not None and (type(largest) is not int or not 1 <= largest <= 65535):
            raise DatasetError(f"photo_range is {largest!r:.40}; wanted a whole number from 1 to 65535")
        return cls(alpha, largest)

    def spec(self) -> dict[str, Any]:
        """What ``of`` reads again: only what is not as usual, as JSON data."""
        alpha = {"alpha": self.alpha} if self.alpha != "composite" else {}
        return alpha | ({"photo_range": self.largest} if self.largest is not None else {})


AS_USUAL = Decoding()


class Look(NamedTuple):
    """What was noticed as a photograph was read.

    Attributes:
        alpha: Whether compositing changed it: ``none``, ``some`` of it, or ``all``, which left it white.
        largest: Largest 16-bit sample of its colours; None where they have 8 bits.
        remarks: What the decoders warned of.
    """

    alpha: str = "none"
    largest: int | None = None
    remarks: tuple[str, ...] = ()


def to_rgb(path: Path, image: ImageFile.ImageFile, decoding: Decoding) -> tuple[Image.Image, Look]:
    """The picture in 8-bit RGB, not yet turned upright.

    Raises:
        DatasetError: Nobody states the range of its samples, or Pillow would misread them.
    """
    if decoding.alpha == "drop":
        _undivided(image)
    if is_deep(image):
        return _from_deep(path, image, decoding)
    if image.mode in ("I", "F"):
        raise DatasetError(f"{path} has 32-bit samples, whose range nobody states; save it with 8 or 16 bits")
    remarks = (_CUT,) if image.format == "JPEG2000" and _bits_of_jpeg_2000(path) == 16 else ()
    if not image.has_transparency_data:
        return image.convert("RGB"), Look(remarks=remarks)
    picture, alpha = _flat(image.convert("RGBA"), decoding)
    return picture, Look(alpha, remarks=remarks)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether samples have 16 bits, as far as the header says."""
    if image.mode == "I":
        return image.format in ("PNG", "PPM")
    if image.mode == "RGB" and image.format == "PPM":
        return [tile.args for tile in image.tile if tile.codec_name == "ppm"] == [("RGB", 65535)]
    return image.mode.startswith("I;16") or bool(_DEEP.search(_rawmode(image))) or _is_deep_planar(image)


def _rawmode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def _is_deep_planar(image: ImageFile.ImageFile) -> bool:
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return image.mode not in ("L", "P") and tags.get(_PLANAR) == 2 and 16 in np.atleast_1d(tags.get(_BITS, 0))


def _undivided(image: ImageFile.ImageFile) -> None:
    """Let a TIFF's colours stay as they are stored, where they count as multiplied by its alpha."""
    image.tile = [
        tile._replace(args=(tile.args[0].replace("RGBa", "RGBA"), *tile.args[1:]))
        if isinstance(tile.args, tuple) and tile.args and isinstance(tile.args[0], str)
        else tile
        for tile in image.tile
    ]


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
    premultiplied = "RGBa" in _rawmode(image)
    samples, mode = _deep_samples(path, image)
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


def _deep_samples(path: Path, image: ImageFile.ImageFile) -> tuple[np.ndarray, str]:
    """The samples, uint16 (H, W, bands), and the mode that such a picture of 8 bits has.

    Pillow keeps one byte of samples in several bands, and reads which one off the order of bytes that the file is said
    to have. Read in either order, the file gives both.
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
    raw = _rawmode(image)
    _undivided(image)
    if raw == "LA;16B":  # there is no other order of it; as four bands of 8 bits it gives all four bytes
        image._mode, image.tile = "RGBA", [tile._replace(args="RGBA") for tile in image.tile]
        pairs = np.asarray(image).astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2], "LA"
    with opened(path, FORMATS, []) as again:
        _undivided(again)
        again.tile = [tile._replace(args=_other_order(tile.args)) for tile in again.tile]
        low = np.asarray(again).astype(np.uint16)
    high = np.asarray(image).astype(np.uint16)
    return high << 8 | low, image.mode


def _bits_of_jpeg_2000(path: Path) -> int:
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
