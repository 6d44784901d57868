"""Run one function in a process of its own, so that its memory is its own and a crash is not everybody's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pseudolabel.errors import PseudolabelError
from pseudolabel.runtime.interrupts import answering_terminate

Result = TypeVar("Result")

_PATIENCE = 20.0  # seconds that a process without its parent has to put its work in safety
_GROUPS = hasattr(os, "setpgrp")  # Windows has none: its Ctrl-C reaches both processes, and os.kill would end the child


def in_own_process(what: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a fresh process and return its result or raise its error, with its traceback as a note.

    An interrupt of this process interrupts that one once, and waits until it has put its work in safety.

    Args:
        what: What it does, for the error's text.
        function: Importable by name.
        *arguments: Picklable, as the result must be.

    Raises:
        PseudolabelError: The process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's memory and threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments))
    try:
        process.start()
        sender.close()
        result, error, trace = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else ""
        cause = f"by signal {name}" if name else f"with exit code {code}"
        hint = "; is there enough memory?" if name == "SIGKILL" else ""
        raise PseudolabelError(
            f"{what} ended {cause}{hint}; the same command goes on from what was saved, if anything was"
        ) from None
    except KeyboardInterrupt:
        if process.pid is not None:
            if _GROUPS:
                os.kill(
                    process.pid, signal.SIGTERM
                )  # a second one, where a scheduler sent all processes one, is ignored
            process.join()
        raise
    process.join()
    if error is not None:
        error.add_note(trace)
        raise error
    return result  # type: ignore[no-any-return]


def _child(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if _GROUPS:
        os.setpgrp()  # the terminal's Ctrl-C goes to the parent alone, which passes it on once
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        with answering_terminate() as ending:
            sender.send((function(*arguments), None, ""))
    except KeyboardInterrupt:
        if ending.asked:
            os.kill(os.getpid(), signal.SIGTERM)  # so that the parent can tell how this process has ended
    except Exception as error:  # noqa: BLE001 - raised again by the parent
        sender.send((None, error, traceback.format_exc()))


def end_with_parent() -> None:
    """Wait for the process that started this one, and end with it, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has only the one
