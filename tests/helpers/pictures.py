"""Image files that Pillow reads and cannot write: PNG and TIFF with 16 bits a band, or with bands of any kind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour type by number of bands


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(path: Path, samples: np.ndarray, *chunks: bytes) -> Path:
    """Write uint16 (H, W, 1 to 4): grey, grey and alpha, RGB or RGBA."""
    tall, wide, bands = samples.shape
    header = struct.pack(">IIBBBBB", wide, tall, 16, _COLOURS[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    whole = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    return path


def tiff(
    path: Path,
    samples: np.ndarray,
    *,
    order: str = "<",
    photometric: int = 2,
    extra: Sequence[int] | None = None,
    planar: bool = False,
    deflated: bool = False,
    tags: Sequence[tuple[int, Sequence[int]]] = (),
) -> Path:
    """Write uint8 or uint16 (H, W, bands) as a TIFF of one strip, or of one a band.

    Args:
        path: Where to.
        samples: The bands.
        order: Of bytes, ``<`` or ``>``.
        photometric: 2 is RGB, 1 grey, 5 CMYK.
        extra: What the bands beyond the colours are: 0 unspecified, 1 associated alpha, 2 unassociated alpha.
        planar: Whether each band is stored on its own.
        deflated: Whether they are compressed.
        tags: More entries, of short integers.
    """
    tall, wide, bands = samples.shape
    stored = samples.astype(samples.dtype.newbyteorder(order))
    strips = (
        [np.ascontiguousarray(stored[..., band]).tobytes() for band in range(bands)] if planar else [stored.tobytes()]
    )
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    places = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    content = b"".join(strips)
    content += b"\0" * (len(content) % 2)
    entries = {
        256: [wide], 257: [tall], 258: [8 * samples.dtype.itemsize] * bands, 259: [8 if deflated else 1],
        262: [photometric], 273: places, 277: [bands], 278: [tall], 279: [len(strip) for strip in strips],
        284: [2 if planar else 1],
    }  # fmt: skip
    entries |= ({338: list(extra)} if extra is not None else {}) | {tag: list(values) for tag, values in tags}
    start = 8 + len(content)
    directory, later = struct.pack(order + "H", len(entries)), b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        values, wide_kind = entries[tag], tag in (273, 279)
        raw = struct.pack(order + ("I" if wide_kind else "H") * len(values), *values)
        if len(raw) > 4:
            raw, later = struct.pack(order + "I", behind + len(later)), later + raw
        directory += struct.pack(order + "HHI", tag, 4 if wide_kind else 3, len(values)) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    path.write_bytes(head + content + directory + struct.pack(order + "I", 0) + later)
    return path
