"""Files and folders that appear complete or not at all, so that a failed run leaves everything as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudolabel.errors import InputError, PseudolabelError

_WRITE_FAILURES = (
    "No space left on device", "File too large", "Disk quota exceeded", "Read-only file system", "Permission denied",
    "Access is denied", "used by another process",  # as Windows says it
)  # fmt: skip


def partial_path(out: Path) -> Path:
    """Where an artefact grows until it is complete."""
    return out.with_name(out.name + ".partial")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (a full disk, a read-only folder) into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 reports a failed write as either, with the cause in its text
        cause = next((text for text in _WRITE_FAILURES if text in str(error)), None)
        if cause is None:
            raise
        raise PseudolabelError(
            f"cannot write {path}: {cause}; free some space or choose another --out, and run again"
        ) from error


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
            if out.exists():
                out.rmdir()  # Windows renames nothing to what exists, not even to an empty folder
            folder.replace(out)


def is_vacant(folder: Path) -> bool:
    """Whether a folder is missing or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


STAGED = "pictures.partial"
"""Name of the folder, inside the one that is written, where files wait until all are complete."""


class Staging:
    """The files to be of one folder.

    Args:
        folder: Where the files will appear.
        fresh: Forget what an interrupted run has left.
    """

    def __init__(self, folder: Path, *, fresh: bool) -> None:
        self._folder = folder
        self._waiting = folder / STAGED
        if fresh and self._waiting.exists():
            shutil.rmtree(self._waiting)
        self._waiting.mkdir(parents=True, exist_ok=True)

    def place(self, path: Path) -> Path:
        """Where to write what will be the file ``path`` of the folder."""
        return self._waiting / path.relative_to(self._folder)

    def find(self, path: Path) -> Path:
        """Where a file of the folder lies now: a run may have been killed while it published."""
        return waiting if (waiting := self.place(path)).exists() else path

    def publish(self, stale: Iterable[Path] = ()) -> None:
        """Give every waiting file its place.

        Args:
            stale: Files of an earlier writing that this one does not replace, to be removed.
        """
        with writing(self._folder):
            for waiting in sorted(path for path in self._waiting.rglob("*") if path.is_file()):
                path = self._folder / waiting.relative_to(self._waiting)
                path.parent.mkdir(parents=True, exist_ok=True)
                waiting.replace(path)
            for path in stale:
                path.unlink(missing_ok=True)
            shutil.rmtree(self._waiting)
