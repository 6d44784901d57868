"""SIGTERM answered as Ctrl-C is: what was done is put in safety, and what was begun ends with it.

Schedulers, ``timeout`` and ``kill`` send it; without an answer a process would end at once and in silence.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that was asked to end, as shells state it."""


class Ending:
    """Whether SIGTERM has come."""

    asked = False


@contextmanager
def answering_terminate() -> Iterator[Ending]:
    """Within the block the first SIGTERM raises a KeyboardInterrupt; further ones cannot break off the clean-up.

    Python lets only the main thread answer signals; in another one this does nothing.
    """
    ending = Ending()

    def answer(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ending.asked = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = signal.signal(signal.SIGTERM, answer)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGTERM, before)
