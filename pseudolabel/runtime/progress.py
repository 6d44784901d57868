"""Progress and messages on stderr, so that stdout carries only the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pseudolabel.runtime.terminal import printable_line, printing_console


class Progress:
    """Silent progress: the library's default. ``RichProgress`` is what the command line passes."""

    def log(self, message: str) -> None:
        """Say what is going on, in one line."""

    def warn(self, message: str) -> None:
        """Say what the user should know even under --quiet."""
        print(f"warning: {printable_line(message)}", file=sys.stderr)

    @contextmanager
    def track(self, total: int, what: str, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Count up to ``total``; yields a function that advances by a number of items.

        Args:
            total: How many items there are.
            what: What is being counted, for instance ``images``.
            done: How many an interrupted run has already done.
        """
        yield lambda count: None


class Silence(Progress):
    """Nothing at all, not even warnings: of several processes that do the same, one speaks."""

    def warn(self, message: str) -> None:
        """Say nothing."""


class RichProgress(Progress):
    """A bar with rate and time left where stderr is a terminal, else only messages.

    Args:
        quiet: No bar and no log lines; warnings remain.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = printing_console(stderr=True)
        self._quiet = quiet

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RichProgress, quiet=self._quiet), ()  # in another process it opens that process's own stderr

    def log(self, message: str) -> None:
        """Print one line on stderr unless quiet."""
        if not self._quiet:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print one line on stderr, always."""
        self._console.print(
            f"warning: {printable_line(message)}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def track(self, total: int, what: str, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a bar of ``total`` items with items/s and the time left."""
        if self._quiet or not self._console.is_terminal:
            yield lambda count: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: RichTask) -> Text:
                return Text(f"{task.speed:.1f} {what}/s" if task.speed else "")

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        with Bar(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda count: bar.advance(task, count)
