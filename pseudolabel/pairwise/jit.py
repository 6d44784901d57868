"""Numba's compiler, set up once: machine code cached on disk, no Python lock while it runs.

The cache lies in one place: the folder that ``NUMBA_CACHE_DIR`` names, else ``pseudolabel`` in the user's cache folder
(``XDG_CACHE_HOME``, else ``~/.cache``). A path that is not absolute is ignored, as the XDG specification has it: it
would mean another place in every working folder. Nothing is written to the package or to the current folder; where the
place cannot be written to, nothing is cached.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit

Function = Callable[..., Any]

# Everything but the promise that no NaN or infinity occurs: a NaN must come out as one.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}
_SILENT = "PSEUDOLABEL_NO_CACHE_TOLD"
_told = False
_lock = threading.Lock()


def _cache_folder() -> Path | None:
    """The folder to cache in, made where it is missing; None where it cannot be written to."""
    settings: Any = config  # filled in as it is loaded
    home = os.environ.get("XDG_CACHE_HOME", "")
    home = home if Path(home).is_absolute() else os.path.expanduser("~/.cache")  # noqa: PTH111 - Path's raises
    named = (Path(settings.CACHE_DIR), Path(home, "pseudolabel"))
    folder = next((place for place in named if place.is_absolute()), None)
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


@cache
def _sources() -> int:
    """A digest of what is compiled into every function."""
    return zlib.crc32(b"".join(Path(__file__).with_name(name).read_bytes() for name in ("jit.py", "rows.py")))


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers at its first call with each combination of types.

    Where the cache's folder cannot be written to, every process compiles anew, and says so once.
    """
    global _told
    # Numba keeps one index for all closures of one name, in which two processes that compile at once can swap entries
    # of one signature: a name for each number of dimensions and maps leaves nothing to swap. And it looks at one
    # file's time only: the digest makes it compile anew where the instructions of ``rows`` have changed.
    numbers = [cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, int)]
    function.__qualname__ = "-".join(map(str, [function.__qualname__, *numbers, _sources()]))
    folder = _cache_folder()
    if folder is not None:
        return _cached(function, folder)
    if not _told and _SILENT not in os.environ:
        _told = True
        os.environ[_SILENT] = "1"  # worker processes inherit it
        message = "the pairwise engine's machine code cannot be kept, as no cache folder can be written: each process"
        print(
            f"Warning: {message} compiles it anew (some seconds); set NUMBA_CACHE_DIR to change that", file=sys.stderr
        )
    return njit(nogil=True, fastmath=_FAST_MATH)(function)


def _cached(function: Function, folder: Path) -> Function:
    """Have Numba cache in this folder.

    Numba knows the folder only as a setting of the whole process, and reads it twice for each function. One thread at a
    time: were the setting put back between the two, the second would be empty, which is the current folder.
    """
    settings: Any = config
    with _lock:
        before = settings.CACHE_DIR
        settings.CACHE_DIR = str(folder)
        try:
            return njit(cache=True, nogil=True, fastmath=_FAST_MATH)(function)
        finally:
            settings.CACHE_DIR = before
