"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from pseudolabel.errors import PseudolabelError
from pseudolabel.runtime.interrupts import TERMINATED, answering_terminate
from pseudolabel.runtime.terminal import printable, printable_line

from .catalogue import STAGES

# Typer's copy of Click is private; its usage errors are the parent of the one that is not.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

INTERRUPTED = 130
RESUMING = ("run", "demo")
"""Commands besides the stages that go on from where they were interrupted."""


def exit_code(command: Any, arguments: list[str] | None) -> int:
    """Run a command and turn whatever happens into an exit code.

    Args:
        command: What ``typer.main.get_command`` returns.
        arguments: Words of the command line; None takes those of this process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    with answering_terminate() as ending:
        code = _tried(command, words)
    if code != INTERRUPTED:
        return code
    code, what = (TERMINATED, "terminated") if ending.asked else (INTERRUPTED, "interrupted")
    goes_on = words and (words[0] in STAGES or words[0] in RESUMING)
    then = "goes on from what was saved, if anything was" if goes_on else "starts anew"
    _forget_interrupt()
    return _say(f"{what}; the same command {then}", code)


def _forget_interrupt() -> None:
    """Let this process end with the exit code that it was given.

    Python notes a KeyboardInterrupt that passes through code which a library runs from C, even if it is caught later,
    and in place of the exit code then ends itself by SIGINT. Running code from C once more clears the note.
    """
    ctypes.pythonapi.PyRun_SimpleString(b"")


def _tried(command: Any, words: list[str]) -> int:
    """Run a command; its exit code, with what went wrong said, but for an interrupt."""
    try:
        code = command.main(args=words, prog_name="pseudolabel", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        return _say(_usage(error), 2, alone=False)
    except PseudolabelError as error:
        return _say(str(error), error.exit_code, alone=error.alone)
    except typer.Abort:
        return _say("aborted", 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing can be said to it
        return 1
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), 1)
    except MemoryError:
        return _say("out of memory; use smaller images, a smaller batch or fewer --workers", 1)
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        return _say(f"{found!a} cannot be written as {error.encoding}; set PYTHONUTF8=1 or rename what holds it", 1)
    except Exception as error:  # noqa: BLE001 - the last resort: a bug keeps its traceback
        print(printable(traceback.format_exc()), end="", file=sys.stderr)
        return _say(f"{type(error).__name__}: {error}; this is a bug in pseudolabel, please report the lines above", 1)
    return int(code or 0)


@contextmanager
def traced(wanted: bool) -> Iterator[None]:  # noqa: FBT001 - a flag of the command line
    """Print the traceback of a library error on its way to ``exit_code``, if wanted."""
    try:
        yield
    except (PseudolabelError, OSError):
        if wanted:
            print(printable(traceback.format_exc()), end="", file=sys.stderr)
        raise


def _open_closed_streams() -> None:
    """Give a stream that the caller closed to nobody; its number would go to the next file that is opened."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def speaks_for_all() -> bool:
    """Whether this process reports what all of those say that torchrun has started: the first one, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _say(message: str, code: int, *, alone: bool = True) -> int:
    """Print an error's line; one that all processes meet is left to the first of them."""
    if alone or speaks_for_all():
        print("error:", printable_line(message), file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """One line from a usage error, with the nearest known flag and where to look for help."""
    text, context = error.format_message().rstrip(".") or "missing command", error.ctx
    option = getattr(error, "option_name", None)
    if option and context:
        from pseudolabel.options.fields import nearest

        known = [flag for parameter in context.command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
        text = text if option in known else f"unknown option {option}{nearest(option, known)}"
    return f"{text[:1].lower()}{text[1:]}; see '{context.command_path if context else 'pseudolabel'} --help'"
