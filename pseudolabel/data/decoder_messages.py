"""What image decoders say beside the pixels, which they print without the name of the file: taken up instead.

Pillow warns and logs; libtiff, which it calls, writes to the process's standard error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image

_LIBTIFF = re.compile(r"[A-Za-z_]\w*: [^\x1b]+")  # a message as libtiff prints it
_stderr = threading.RLock()  # the two orders of bytes of one file are read one within the other


class _Listener(logging.Handler):
    """Takes what Pillow logs while this thread has a file open; without it, Python prints it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.open = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        getattr(self.open, "said", []).append(record.getMessage())


_listener = _Listener()
logging.getLogger("PIL").addHandler(_listener)


@contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Take what Pillow warns of and logs; the warnings of others are passed on.

    Args:
        said: Takes the messages, one line each.
    """
    outer = getattr(_listener.open, "said", [])
    _listener.open.said = said
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        _listener.open.said = outer
        for item in caught:
            if item.category is Image.DecompressionBombWarning:
                pass  # half of what is refused: large, and read all the same
            elif f"{os.sep}PIL{os.sep}" in item.filename:
                said.append(str(item.message).replace("\n", " ").strip())
            else:
                warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)


@contextmanager
def from_libtiff(said: list[str]) -> Iterator[None]:
    """Take what libtiff prints; what others print to standard error meanwhile is passed on afterwards.

    Args:
        said: Takes the messages, one line each.
    """
    with _stderr:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            taken, usual = tempfile.TemporaryFile(), os.dup(2)  # noqa: SIM115 - closed below
        except OSError:  # no place for it, or no standard error
            yield
            return
        os.dup2(taken.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(usual, 2)
            os.close(usual)
            taken.seek(0)
            lines = taken.read().splitlines(keepends=True)
            taken.close()
            for line in lines:
                text = line.decode(errors="replace").strip()
                if _LIBTIFF.fullmatch(text):
                    said.append(text)
                else:
                    os.write(2, line)
