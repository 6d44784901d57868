"""Names of files, images and classes in one Unicode normal form.

``é`` is one character, or ``e`` and an accent: macOS writes names of files in the latter form, NFD, and nearly
everything else in the former, NFC. Ids and class names are NFC throughout, whatever the files are called.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from pseudolabel.runtime.files import stands


def nfc(name: str) -> str:
    """A name in the normal form NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def file_named(folder: Path, name: str) -> Path:
    """The path of a file in a folder, in the normal form that its name has there; as given where there is none."""
    if not name.isascii():
        for form in (nfc(name), unicodedata.normalize("NFD", name)):
            path = folder / form
            if stands(path):
                return path
    return folder / name
