"""HTML from nested calls. Whatever is not markup already is escaped, so that no name can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_EMPTY = ("br", "img", "meta", "circle", "line", "path", "rect")


class Html(str):
    """Text that is markup."""

    __slots__ = ()


Child = str | Iterable[str] | None


def element(name: str, /, *children: Child, **attributes: Any) -> Html:
    """One element.

    Args:
        name: Of HTML or SVG.
        *children: Text, which is escaped; markup; lists of either; None for nothing.
        **attributes: By name; ``class_`` is ``class`` and ``_`` is ``-``. None leaves an attribute out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    start = " ".join(words)
    return Html(f"<{start}/>" if name in _EMPTY else f"<{start}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Children one after another, as ``element`` takes them."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        items = [child] if isinstance(child, str) else child
        parts += [item if isinstance(item, Html) else html.escape(item) for item in items]
    return Html("".join(parts))
