"""Files and folders that appear complete or not at all, so that a failed run leaves everything as it was."""

from __future__ import annotations

import glob
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pseudolabel.errors import InputError, PseudolabelError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

_LOCKED_BYTE = 2**31 - 2  # the last that Windows locks. What is locked nobody else can read, and the beginning is read
_UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.new\.partial", re.DOTALL)
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device", stat.S_IFLNK: "a link",
}  # fmt: skip
_WRITE_FAILURES = (
    "No space left on device", "File too large", "Disk quota exceeded", "Read-only file system", "Permission denied",
    "Access is denied", "used by another process",  # as Windows says it
)  # fmt: skip


def partial_path(out: Path) -> Path:
    """Where an artefact grows until it is complete."""
    return out.with_name(out.name + ".partial")


def what_is_there(path: Path, *, follow: bool = True) -> str | None:
    """In words what lies under a name, if it is no regular file; None for a regular file, and for nothing.

    Args:
        path: The name.
        follow: Whether a link counts as what it leads to.
    """
    try:
        mode = (path.stat() if follow else path.lstat()).st_mode
    except OSError:
        return "a link that leads nowhere" if path.is_symlink() else None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def require_replaceable(path: Path) -> None:
    """Refuse to replace anything but a regular file.

    Raises:
        InputError: A folder, a FIFO, a device, a socket, or a link that leads nowhere.
    """
    if found := what_is_there(path):
        raise InputError(f"{path} is {found} and will not be replaced; choose another --out")


def unfinished_path(path: Path) -> Path:
    """A new name beside a file, which nobody can have guessed and laid a link to another file under."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.new.partial")


def is_unfinished(path: Path) -> bool:
    """Whether a name is one of ``unfinished_path``."""
    return _UNFINISHED.fullmatch(path.name) is not None


def claim(file: io.FileIO) -> bool:
    """Claim an open file until it is closed; False where another run has it."""
    try:
        if "fcntl" in globals():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # only on Windows
    except (BlockingIOError, PermissionError):
        return False
    return True


def forget_unfinished(path: Path) -> None:
    """Remove what killed runs have left of a file; what a run has claimed stays."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.new.partial"):
        if is_unfinished(left) and what_is_there(left, follow=False) is None:
            with suppress(OSError), io.FileIO(left, "r") as file:
                if claim(file):
                    left.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the name ``path`` when the block is left without an error.

    Raises:
        InputError: ``path`` is something else than a regular file.
    """
    require_replaceable(path)
    unfinished = unfinished_path(path)
    try:
        with unfinished.open("xb") as file:  # exclusive: follows no link
            yield file
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
    if out.is_symlink() or (found := what_is_there(out)) not in (None, "a folder"):
        found = "a link" if out.is_symlink() else found
        raise InputError(f"{out} is {found} and will not be replaced; choose another --out")
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
        for place in (folder, self._waiting):
            found = what_is_there(place, follow=place == folder)
            if found not in (None, "a folder") or (found is None and os.path.lexists(place)):
                raise InputError(f"{place} is {found or 'a file'}; wanted a folder to write to: choose another --out")
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
            files = sorted(path for path in self._waiting.rglob("*") if path.is_file() and not is_unfinished(path))
            places = {waiting: self._folder / waiting.relative_to(self._waiting) for waiting in files}
            for path in places.values():
                require_replaceable(path)
            for waiting, path in places.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                waiting.replace(path)
            for path in stale:
                path.unlink(missing_ok=True)
            shutil.rmtree(self._waiting)

    def forget(self) -> None:
        """Remove all that waits, and the folder if nothing else is in it."""
        shutil.rmtree(self._waiting)
        if is_vacant(self._folder):
            self._folder.rmdir()
