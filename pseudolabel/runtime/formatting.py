"""Formatting of values for tables on a terminal and in a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pseudolabel.runtime.terminal import printable


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
    return printable(str(value))


def counted(number: float, noun: str) -> str:
    """A number, three digits of it where it is no integer, and the noun that it counts: ``1 epoch``, ``2.5 epochs``."""
    text = f"{number:.3g}" if isinstance(number, float) else str(number)
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def either(words: Iterable[str]) -> str:
    """Words of which one will do: ``a``, ``a or b``, ``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def part_of_all(count: int, others: int) -> str:
    """How many there are, and of how many where there are others: ``16``, ``3 of 16``."""
    return f"{count} of {count + others}" if others else str(count)


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def span(interval: list[float] | None) -> str:
    """The low and the high end of an interval of shares, as percentages, or a dash where there is none."""
    return f"{percent(interval[0])} to {percent(interval[1])}" if interval else "-"


def duration(seconds: float | None) -> str:
    """A duration in s, min or h."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: float | None) -> str:
    """A number of bytes, in powers of 1000."""
    if count is None:
        return "-"
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"
