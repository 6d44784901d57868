"""Folders that appear when everything in them is written, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudolabel.artefacts.store import writing
from pseudolabel.errors import InputError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill, beside ``out``, whose name it gets when the block is left without an error.

    Raises:
        InputError: ``out`` holds something already.
        PseudolabelError: It cannot be written.
    """
    if not is_vacant(out):
        raise InputError(f"{out} is not empty; choose another --out, or remove it first")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
            folder = Path(place) / "set"
            folder.mkdir()
            yield folder
            folder.replace(out)


def is_vacant(folder: Path) -> bool:
    """Whether a folder is missing or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
