"""The label PNGs that nearly everybody writes, read at three times Pillow's speed (benchmarks/speed/evaluate_masks.py).

Reading is most of what scoring masks costs. A palette PNG as Pillow, libpng and VOC write it is one zlib stream of
unfiltered rows, so that inflating it is all there is to do, which zlib-ng does much quicker than zlib. Everything
else is left to Pillow.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

from pseudolabel.runtime.files import read_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bit depth, colour type, compression, filter, interlace
_GREY, _PALETTE = 0, 3


def read_plain_png(path: Path) -> np.ndarray | None:
    """Read an 8-bit palette or grey PNG whose rows are neither filtered nor interlaced.

    Args:
        path: Any file.

    Returns:
        uint8 (H, W), the stored values; None where the file is anything else, broken, or larger than Pillow's limit.
    """
    try:
        content = read_regular(path)
    except OSError:
        return None
    header, pixels = _chunks(content)
    if len(header) != _HEADER.size:
        return None
    width, height, depth, colour, *rest = _HEADER.unpack(header)
    most = Image.MAX_IMAGE_PIXELS or 0
    if depth != 8 or colour not in (_GREY, _PALETTE) or any(rest) or not 0 < width * height <= most:
        return None
    size = height * (width + 1)
    inflater = zlib_ng.decompressobj()
    try:
        values = inflater.decompress(pixels, size)
        # The stream's checksum is read only behind its last byte, which is why one more is asked for.
        if len(values) != size or inflater.decompress(inflater.unconsumed_tail, 1) or not inflater.eof:
            return None
    except zlib_ng.error:  # type: ignore[misc]  # its stub takes the class for an instance
        return None
    rows = np.frombuffer(values, dtype=np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:].copy()


def _chunks(content: bytes) -> tuple[bytes, bytes]:
    """The header and the compressed pixels of a PNG; nothing where the file is broken or no PNG."""
    header, pixels, name = b"", [], b""
    position = len(_SIGNATURE)
    if not content.startswith(_SIGNATURE):
        return b"", b""
    try:
        while name != b"IEND":
            (length,) = struct.unpack_from(">I", content, position)
            chunk = content[position + 4 : position + 8 + length]
            if struct.unpack_from(">I", content, position + 8 + length)[0] != zlib_ng.crc32(chunk):
                return b"", b""
            name = chunk[:4]
            if name == b"IHDR":
                header = chunk[4:]
            elif name == b"IDAT":
                pixels.append(chunk[4:])
            position += 12 + length
    except struct.error:
        return b"", b""
    return header, b"".join(pixels)
