"""The one way to open a file that a user names: only regular files, so that nothing can hang on a pipe or a device."""

from __future__ import annotations

import os
import stat
from errno import EINVAL, EISDIR, ELOOP
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading bytes, if it is a regular one or a link to one.

    To open a named pipe would wait for its writer, to read a device may never end. It is asked what it is before it is
    opened, and again afterwards, since it may have been replaced in between.

    Raises:
        OSError: It cannot be opened. Where it is no regular file, ``strerror`` says what it is instead.
    """
    _require_regular(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: As ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read()


def stands(path: Path) -> bool:
    """Whether anything has this name, a broken link or a named pipe too: what is there is read or complained of.

    ``Path.is_file`` says of such things that there is nothing, so that an input would be passed over in silence.
    """
    return os.path.lexists(path)


def absolute(path: Path) -> Path:
    """An absolute path with symbolic links followed; a loop of them stays, of which ``Path.resolve`` may raise."""
    return Path(os.path.realpath(path))


def what_stands(path: Path) -> str:
    """What a path is that is not the regular file that was wanted, as the end of a sentence that it begins."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a symbolic link to nothing" if path.is_symlink() else "does not exist"
    except OSError as error:
        return "is a loop of symbolic links" if error.errno == ELOOP else f"cannot be opened: {error.strerror}"
    return "is a folder" if stat.S_ISDIR(mode) else f"is {_kind(mode)}"


def _kind(mode: int) -> str:
    return next((f"{name}, not a regular file" for test, name in _KINDS if test(mode)), "not a regular file")


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(EINVAL, f"it is {_kind(mode)}", str(path))
