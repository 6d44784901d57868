"""Parts of a page: tables, lists, and charts side by side."""

from __future__ import annotations

from collections.abc import Sequence

from pseudolabel.runs.report.charts import STYLES
from pseudolabel.runs.report.html import Html, element, joined
from pseudolabel.runs.report.tables import Table
from pseudolabel.runtime.formatting import percent


def bar_cell(share: float | None, style: int) -> Html:
    """A table cell of a share, as a number over a bar."""
    bar = element("span", class_=f"s{style % STYLES}", style=f"width:{100 * share:.1f}%") if share is not None else None
    return element("td", percent(share), bar, class_="bar")


def table_of(table: Table) -> Html:
    """A table of text."""
    head = [
        element("th", name, scope="col", class_=None if column < table.words else "number")
        for column, name in enumerate(table.head)
    ]
    parts = [element("thead", element("tr", head))]
    for heading, rows in table.sections:
        group = element("tr", element("th", heading, scope="rowgroup", colspan=len(table.head))) if heading else None
        parts.append(element("tbody", group, [row_of(row, table.words) for row in rows]))
    return scrolled(table.title, *parts)


def row_of(row: Sequence[str], words: int) -> Html:
    """A row of text, named by its first cell."""
    cells = [
        element("td", cell, class_=None if column < words else "number") for column, cell in enumerate(row) if column
    ]
    return element("tr", element("th", row[0], scope="row"), cells)


def scrolled(caption: str, *parts: Html) -> Html:
    """A table that scrolls by itself where it is wider than the page."""
    table = element("table", element("caption", caption), *parts)
    return element("div", table, class_="scroll", role="region", tabindex=0, aria_label=caption)


def notes_of(title: str, notes: Sequence[str]) -> Html | None:
    """A list under a heading; nothing if it is empty."""
    if not notes:
        return None
    return joined(element("h3", title), element("ul", [element("li", note) for note in notes]))


def charts(found: Sequence[Html]) -> Html:
    """Charts side by side, as many as there is room for."""
    return element("div", found, class_="charts") if found else Html()
