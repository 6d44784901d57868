"""The CSV table of image tags that every layout can read: class names by image, or one column a class (one-hot)."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.lists import background_name, read_text, unsafe
from pseudolabel.data.names import nfc
from pseudolabel.errors import DatasetError

_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")
_TAG_COLUMN = re.compile(r"(tags?|class(es)?|labels?|names?|categor(y|ies)|objects?)?[ _-]?\d*", re.IGNORECASE)
_ID_COLUMN = re.compile(r"id|(image|img|file)([ _-]?(id|name))?|name|path", re.IGNORECASE)
_FORM = "wanted names separated by ';', such as cat;dog"
_ONE_HOT = "a one-hot table has the heading id,CLASS,CLASS and cells of 0 and 1; names stand in a column called tags"


class Row(NamedTuple):
    """One image's line in a tag table: where it stands, and the class names."""

    where: str
    names: tuple[str, ...]


class TagTable(NamedTuple):
    """A table of image tags.

    Attributes:
        rows: By image id.
        columns: The classes of a one-hot table, also those that no image has; else empty.
        notes: What was left out that is no fault, one line each.
    """

    rows: dict[str, Row]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_table(path: Path, fault: Fault = stop) -> TagTable:
    """Read a table of image tags.

    One image a line: its id, then its class names separated by ``;`` or in further columns. A first line that begins
    with ``id`` is a heading. An image without names has no class in it. Where the heading names classes and all cells
    are 0 or 1, the table is one-hot. ``background`` is no tag and is left out.

    Args:
        path: UTF-8 CSV.
        fault: Told of every unsafe or repeated id.

    Raises:
        DatasetError: The file cannot be read, or its columns are no tags.
    """
    lines = list(_lines(path))
    if lines and (found := re.match(r"id\s*([;\t])", lines[0][1][0], re.IGNORECASE)):
        raise DatasetError(f"{path} separates its columns by {found[1]!r}; wanted commas")
    heading = _heading(lines)
    columns: list[str] = []
    if heading:
        heading = _shortened(heading, 1)
        lines = [(number, _shortened(cells, len(heading))) for number, cells in lines[1:]]
        columns = _one_hot_columns(path, heading, lines)
    elif lines and all(len(cells) > 2 and set(cells[1:]) <= {*_YES, *_NO} for _, cells in lines):
        raise DatasetError(f"{path} holds cells of 0 and 1 only, and no heading that names their classes; {_ONE_HOT}")
    table: dict[str, Row] = {}
    background = 0
    for number, cells in lines:
        where, name = f"{path}, line {number}", cells[0]
        if complaint := unsafe(name):
            fault(f"{where}: id {name!r} {complaint}")
        elif name in table:
            first = table[name].where.rpartition(", ")[2]
            fault(f"{where}: id {name!r} stands already on {first}; remove one of them")
        else:
            words = (word.strip() for cell in cells[1:] for word in cell.split(";"))
            if columns:
                words = (column for column, cell in zip(columns, cells[1:], strict=False) if cell.casefold() in _YES)
            names = [nfc(word) for word in words if word]
            kept = [word for word in names if not background_name(word)]
            background += len(kept) < len(names)
            table[name] = Row(where, tuple(kept))
    notes = (f"{path}: 'background' is no tag, and is left out of {background} rows",) if background else ()
    classes = [nfc(name) for name in columns if not background_name(name)]
    return TagTable(table, tuple(classes), notes)


def strange_name(name: str) -> str | None:
    """Why a tag is hardly one class's name, or None."""
    if re.search(r"""^[\[{'"]|[\]}"]$|^\(['"]""", name):
        return f"{name!r} is no class name; {_FORM}, without brackets and quotes"
    if found := re.search(r"[|,]", name):
        return f"{name!r} holds {found[0]!r}; {_FORM}"
    if re.search(r"[:=]\s*(\d+(\.\d+)?|\.\d+)$", name):
        return f"{name!r} ends in a number; {_FORM}"
    return None


def plain_names(rows: Mapping[str, Row], fault: Fault, mend: Path) -> dict[str, Row]:
    """The rows without names that can hardly be meant, where nothing but the table says what the classes are.

    Args:
        rows: Of a table.
        fault: Told of each such name, once.
        mend: The file that may name such classes all the same.
    """
    first: dict[str, str] = {}
    for row in rows.values():
        for name in row.names:
            first.setdefault(name, row.where)
    complaints = {name: complaint for name in first if (complaint := strange_name(name))}
    complaints |= {name: words for name, words in _alike(first) if name not in complaints}
    combined = _combined(first) - complaints.keys()
    complaints |= {name: f"{name!r} is made of other classes' names; {_FORM}" for name in combined}
    if first.keys() and first.keys() <= {"0", "1"}:
        complaints |= {name: f"{name!r} is a number and no class name; {_ONE_HOT}" for name in first}
    for name in (name for name in first if name in complaints):
        fault(f"{first[name]}: {complaints[name]} (if it is a class, name all classes in {mend})")
    return {
        key: Row(row.where, tuple(name for name in row.names if name not in complaints)) for key, row in rows.items()
    }


def folded(name: str) -> str:
    """A name without what hardly tells two classes apart: case, blanks, and characters that nobody sees."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(seen.casefold().split())


def _alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that an earlier one differs from by case or blanks only, and what to say of them."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(folded(name), name)
        if other != name:
            yield name, f"class {name!r} stands beside {other!r}; write it in one way"


def _combined(names: Iterable[str]) -> set[str]:
    """Names that consist of others, or, where signs such as ``/`` part them, share each part with some other."""
    pieces = {name: [part for part in re.split(r"\s+and\s+|[\s/+&:]+", name.casefold()) if part] for name in names}
    known = {name.casefold() for name in pieces}
    signs = {name: {part.strip() for part in re.split(r"[/+&]", name.casefold()) if part.strip()} for name in pieces}
    shared = Counter(part for parts in signs.values() for part in parts)
    return {
        name
        for name, parts in pieces.items()
        if (len(parts) > 1 and known.issuperset(parts))
        or (len(signs[name]) > 1 and all(shared[part] > 1 for part in signs[name]))
    }


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that holds anything, blanks around cells taken off."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _shortened(cells: list[str], least: int) -> list[str]:
    """The cells without empty ones at their end, as spreadsheets write them; at least so many stay."""
    while len(cells) > least and not cells[-1]:
        cells = cells[:-1]
    return cells


def _heading(lines: Sequence[tuple[int, list[str]]]) -> list[str]:
    """The cells of the first line, if it is a heading; else none."""
    cells = lines[0][1] if lines else []
    if cells and cells[0].lower() == "id":
        return cells
    if len(cells) > 1 and _ID_COLUMN.fullmatch(cells[0]):
        below = {cell.casefold() for _, row in lines[1:] for cell in row[1:]}
        if (below and below <= {*_YES, *_NO}) or (cells[1] and _TAG_COLUMN.fullmatch(cells[1])):
            return cells
    return []


def _one_hot_columns(path: Path, heading: Sequence[str], lines: Sequence[tuple[int, list[str]]]) -> list[str]:
    """The classes of a one-hot table; none where the cells are names.

    Raises:
        DatasetError: A column is neither.
    """
    columns = list(heading[1:])
    others = [place for place, name in enumerate(columns, 1) if not _TAG_COLUMN.fullmatch(name)]
    if not others or not lines:
        return []
    cells = {place: [(number, row[place]) for number, row in lines if len(row) > place] for place in others}
    given = {place: [cell for _, cell in column if cell] for place, column in cells.items()}
    marks = {*_YES, *_NO}
    if (
        len(others) == len(columns)
        and any(given.values())
        and all(_is_mark(cell) for column in given.values() for cell in column)
    ):
        for number, row in lines:
            if len(row) != len(heading):
                raise DatasetError(
                    f"{path}, line {number} has {len(row)} cells, its heading {len(heading)}; {_ONE_HOT}"
                )
        for place, column in cells.items():
            odd = next(((number, cell) for number, cell in column if cell.casefold() not in marks), None)
            if odd:
                raise DatasetError(f"{path}, line {odd[0]}: column {heading[place]!r} holds {odd[1]!r}; {_ONE_HOT}")
        twice = {name for name, count in Counter(columns).items() if count > 1}
        if twice:
            raise DatasetError(f"{path}: its heading names class {min(twice)!r} twice; remove one of the columns")
        return columns
    for place in others:
        pivoted = all(cell == heading[place] for cell in given[place])
        if not pivoted and (
            len(others) < len(columns) or (given[place] and all(_is_mark(cell) for cell in given[place]))
        ):
            raise DatasetError(
                f"{path}: column {heading[place]!r} holds neither class names nor cells of 0 and 1 of a class; remove "
                f"it ({_FORM}; {_ONE_HOT})"
            )
    return []


def _is_mark(cell: str) -> bool:
    """Whether a cell says whether, or how often or how surely, a class is there."""
    return bool(
        re.fullmatch(r"[+-]?(\d+(\.\d+)?|\.\d+)|x|y(es)?|no?|t(rue)?|f(alse)?|present|absent", cell, re.IGNORECASE)
    )
