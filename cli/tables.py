"""Tables on stdout, and the console that prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pseudolabel.runtime.formatting import short
from pseudolabel.runtime.terminal import printing_console


def console(width: int | None = None) -> Console:
    """Rich's console on stdout; a pipe or a file gets lines of up to 120 characters.

    Args:
        width: Characters in a line, whatever stdout is.
    """
    output = printing_console(highlight=False, width=width)
    return output if width or output.is_terminal else printing_console(highlight=False, width=120)


def key_values(values: Mapping[str, Any], *, title: str | None = None) -> Table:
    """A table of two columns; nested mappings become ``outer inner`` rows."""
    table = make_table(["", ""], title=title)
    table.show_header = False
    for key, value in _flat(values):
        table.add_row(Text(key.replace("_", " "), style="bold"), Text(short(value)))
    return table


def make_table(left: Iterable[str], right: Iterable[str] = (), *, title: str | None = None) -> Table:
    """An empty table with columns of words, then columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
