"""Numba's compiler, set up once: machine code cached on disk, no Python lock while it runs."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit

Function = Callable[..., Any]

# Everything but the promise that no NaN or infinity occurs: a NaN must come out as one.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}
_SILENT = "PSEUDOLABEL_NO_CACHE_TOLD"
_told = False


@contextmanager
def _cache_folder() -> Iterator[None]:
    """Let Numba choose the user's cache folder, where it would choose the package's own.

    What pip has not installed it does not remove either: the rest of an old installation would hide an editable one.
    """
    settings: Any = config  # filled in as it is loaded
    before = settings.CACHE_DIR
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pseudolabel"
    settings.CACHE_DIR = before or str(folder)
    try:
        yield
    finally:
        settings.CACHE_DIR = before


@cache
def _sources() -> int:
    """A digest of what is compiled into every function."""
    return zlib.crc32(b"".join(Path(__file__).with_name(name).read_bytes() for name in ("jit.py", "rows.py")))


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers at its first call with each combination of types.

    Where no folder can be written for the cache (``NUMBA_CACHE_DIR`` names another), every process compiles anew, and
    says so once.
    """
    global _told
    # Numba keeps one index for all closures of one name, in which two processes that compile at once can swap entries
    # of one signature: a name for each number of dimensions and maps leaves nothing to swap. And it looks at one
    # file's time only: the digest makes it compile anew where the instructions of ``rows`` have changed.
    numbers = [cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, int)]
    function.__qualname__ = "-".join(map(str, [function.__qualname__, *numbers, _sources()]))
    try:
        with _cache_folder():
            return njit(cache=True, nogil=True, fastmath=_FAST_MATH)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    if not _told and _SILENT not in os.environ:
        _told = True
        os.environ[_SILENT] = "1"  # worker processes inherit it
        message = "the pairwise engine's machine code cannot be kept, as no cache folder can be written: each process"
        print(
            f"Warning: {message} compiles it anew (some seconds); set NUMBA_CACHE_DIR to change that", file=sys.stderr
        )
    return njit(nogil=True, fastmath=_FAST_MATH)(function)
