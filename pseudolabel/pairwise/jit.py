"""Numba's compiler, set up once: machine code cached on disk, no Python lock while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from numba import njit

Function = Callable[..., Any]

# Everything but the promise that no NaN or infinity occurs: a NaN must come out as one.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}
_told = False


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers at its first call with each combination of types.

    Where no folder can be written for the cache (``NUMBA_CACHE_DIR`` names another), every process compiles anew, and
    says so once.
    """
    global _told
    try:
        return njit(cache=True, nogil=True, fastmath=_FAST_MATH)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    if not _told:
        _told = True
        message = "the pairwise engine's machine code cannot be kept, as no cache folder can be written: each process"
        print(
            f"Warning: {message} compiles it anew (some seconds); set NUMBA_CACHE_DIR to change that", file=sys.stderr
        )
    return njit(nogil=True, fastmath=_FAST_MATH)(function)
