"""Opening image files: which formats are read, why a file cannot be, and what the decoders say of it besides.

Pillow refuses a file of more than 178,956,970 pixels before it decodes anything, so that a small file cannot fill the
memory.
"""

from __future__ import annotations

import importlib
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from pseudolabel.data.decoder_messages import from_libtiff, heard
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import open_regular

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".ppm", ".pgm", ".avif",
)  # fmt: skip
"""Endings, in lower case, of the files that count as photographs."""

OTHER_SUFFIXES = (
    ".heic", ".heif", ".jxl", ".psd", ".tga", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".dcm",
    ".j2k", ".svg", ".pcx", ".npy",
)  # fmt: skip
"""Endings of pictures that are not read, so that whoever has such files is told."""

NAMES = "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PPM or AVIF"
"""The formats of photographs, for people."""


def _known(name: str) -> bool:
    """Whether this Pillow has a reader; those before 11.3 have none of AVIF."""
    with suppress(ImportError):
        importlib.import_module(f"PIL.{name}")
        return True
    return False


# Nothing else is even tried: some of Pillow's readers start other programs.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM"),
    *(("AVIF",) if _known("AvifImagePlugin") else ()),
)
_MAGIC = (
    b"\x89PNG",
    b"\xff\xd8",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"GIF8",
    b"\0\0\0\x0cjP",
)  # of FORMATS; PNG first
_TIFF = (b"II", b"MM")
_UNREAD_TIFF = ("unknown pixel mode", "unknown data organization", "Invalid value for samples per pixel")
_KINDS = ((b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"BM", "BMP"), (b"GIF8", "GIF"), (b"RIFF", "WebP"))
# What Pillow raises; RuntimeError is AVIF's.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, MemoryError)


@contextmanager
def opened(path: Path, formats: tuple[str, ...], remarks: list[str]) -> Iterator[ImageFile.ImageFile]:
    """Open an image file.

    Args:
        path: The file.
        formats: Pillow's names of the formats to try.
        remarks: Takes what the decoders warn of, which they would otherwise print without the name of the file.

    Raises:
        DatasetError: The file, as far as it is read within the block, is missing, no regular file, empty, truncated,
            corrupt, too large, or of another format; the message names it.
    """
    said: list[str] = []
    try:
        with (
            heard(said),
            open_regular(path) as file,
            Image.open(file, formats=formats) as image,
            from_libtiff(said) if any(tile.codec_name == "libtiff" for tile in image.tile) else nullcontext(),
        ):
            yield image
    except Image.DecompressionBombError as error:
        counts = re.findall(r"\d+", str(error))
        found = f"has {counts[0]} pixels, more than the limit of {counts[1]}" if len(counts) > 1 else str(error)
        raise DatasetError(f"{path} {found}; make it smaller or remove it") from error
    except _BROKEN as error:
        raise DatasetError(f"{path} {_cause(path, formats, error, said)}") from error
    remarks += dict.fromkeys(said)


def _cause(path: Path, formats: tuple[str, ...], error: Exception, said: list[str]) -> str:
    """Why a file could not be read, as the end of a sentence that its path begins."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.strerror:  # of the operating system, not of Pillow
        return f"cannot be opened: {error.strerror}"
    with open_regular(path) as file:
        begin = file.read(12)
    if not begin:
        return "is empty (0 bytes); replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path, formats, begin)
    if "truncated" in str(error).lower():
        return "is truncated; replace or remove it"
    details = said[-1].rstrip(".") if said and "decoder error" in str(error) else error
    return f"is corrupt ({details}); replace or remove it".replace("\n", " ")


def _unidentified(path: Path, formats: tuple[str, ...], begin: bytes) -> str:
    if len(formats) == 1 and begin.startswith(b"\xff\xd8"):
        return (
            "is a JPEG, whose lossy compression alters class indices; make the labels anew as 8-bit PNG, "
            "since converting this file does not bring them back"
        )
    if len(formats) == 1 and (kind := next((kind for magic, kind in _KINDS if begin.startswith(magic)), None)):
        return f"is a {kind} image; convert it to an 8-bit palette or grey PNG of class indices"
    if len(formats) > 1 and begin.startswith(_TIFF) and _is_foreign_tiff(path):
        return "is a TIFF with bands that Pillow does not read; save it as grey or RGB of 8 or 16 bits"
    if begin.startswith(_MAGIC if len(formats) > 1 else _MAGIC[:1]):
        return "is corrupt: its header cannot be read; replace or remove it"
    return f"is no {NAMES if len(formats) > 1 else 'PNG'} image (it begins with {begin[:8]!r}); replace or remove it"


def _is_foreign_tiff(path: Path) -> bool:
    """Whether a TIFF is whole as far as its header goes, but for its kind of samples."""
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        return str(error) in _UNREAD_TIFF
    except _BROKEN:
        return False
    return False
