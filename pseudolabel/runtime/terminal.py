"""Text on its way to a terminal: what would move the cursor, colour or reorder the line is shown, not obeyed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of the direction of writing
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff]"  # ends of lines, marks that nobody sees, bytes that are no text
    "|[\U000e0000-\U000e007f]"
)

_LONGEST = 4000  # characters of a line; two paths of the longest kind are twice as many


def printable(text: str) -> str:
    """A text with everything in it that a terminal would obey as an escape, such as ``\\\\x1b``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def printable_line(text: str) -> str:
    """A message as one line, ``printable``, without its middle where a name of a broken file makes it endless."""
    line = " ".join(text.split())
    return printable(line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}")


def printable_json(text: str) -> str:
    """A JSON document whose strings hold such characters as JSON's own escapes."""
    return _UNSAFE.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _units(found[0])), text)


def _units(character: str) -> list[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[start : start + 2], "big") for start in range(0, len(raw), 2)]


def printing_console(**settings: Any) -> Console:
    """A Rich console that passes every text through ``printable``, in tables and bars too.

    Args:
        **settings: As ``rich.console.Console`` takes them.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text), style, control)

    return PrintingConsole(**settings)
