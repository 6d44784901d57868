"""Results on stdout: a table, or one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_result(stage: str, result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a stage returned."""
    if as_json:
        print_json(result)
    elif stage == "evaluate-masks":
        from .scores import show_scores

        show_scores(result)
    else:
        console().print(key_values(result, title=stage))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def console(width: int | None = None) -> Console:
    """Rich's console on stdout; a pipe or a file gets lines of up to 120 characters.

    Args:
        width: Characters in a line, whatever stdout is.
    """
    output = Console(highlight=False, width=width)
    return output if width or output.is_terminal else Console(highlight=False, width=120)


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


def short(value: Any) -> str:
    """A value in a few words: four significant digits, at most six items of a list."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        more = f" ... ({len(value)} in all)" if len(value) > 6 else ""
        return (", ".join(short(item) for item in value[:6]) or "none") + more
    return str(value)


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: float | None) -> str:
    """Bytes as a person says them, in powers of 1000."""
    if count is None:
        return "-"
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
