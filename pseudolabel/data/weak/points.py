"""Lists of labelled points: a CSV of ``id,class,x,y``, or the JSON of "What's the Point" (Bearman et al. 2016).

The JSON is an object of image id to a list of clicks; of each, ``x`` and ``y`` are read (pixels from 0) and ``cls``,
the class index from 1 (VOC's classes in alphabetical order). Other keys, such as ``rank``, play no part.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.data.faults import Fault
from pseudolabel.data.json_files import parse_json
from pseudolabel.data.lists import read_text, unsafe
from pseudolabel.data.shapes import Point
from pseudolabel.data.tags import label_of
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import stands
from pseudolabel.runtime.formatting import counted

TABLE = "points.csv"
"""Name of the table in a folder of points."""

HEADING = ("id", "class", "x", "y")
"""The columns of the table."""


def read_points(
    path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault
) -> tuple[dict[str, tuple[Point, ...]], dict[str, str]]:
    """Read a list of points.

    Args:
        path: A ``.csv`` or ``.json`` file, or a folder with a ``points.csv``.
        wanted: The ids to keep.
        classes: Class names, background first, which may have points too.
        fault: Told of every faulty entry, which is left out.

    Returns:
        Points by image id; and of ids that are not wanted, the first entry that has each.

    Raises:
        DatasetError: The file is unreadable, or neither of the two; or the folder has no table.
    """
    file = path / TABLE if path.is_dir() else path
    if not stands(file):
        raise DatasetError(
            f"{path} holds no {TABLE}; wanted one with lines of {','.join(HEADING)}, "
            "or the path of a JSON of What's the Point"
        )
    rows = _json_rows(file, classes, fault) if file.suffix.lower() == ".json" else _csv_rows(file, classes, fault)
    found: dict[str, list[Point]] = {}
    strays: dict[str, str] = {}
    for name, point in rows:
        if complaint := unsafe(name):
            fault(f"{point.where}: id {name!r} {complaint}")
        elif name not in wanted:
            strays.setdefault(name, point.where)
        else:
            found.setdefault(name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}, strays


def _csv_rows(path: Path, classes: Sequence[str], fault: Fault) -> Iterator[tuple[str, Point]]:
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        for cells in reader:
            words = [cell.strip() for cell in cells]
            where = f"{path}, line {reader.line_num}"
            named = tuple(word.lower() for word in words)
            if sorted(named) == sorted(HEADING) and named != HEADING:
                raise DatasetError(f"{where}: the columns are {','.join(named)}; wanted them as {','.join(HEADING)}")
            if not any(words) or named[0] == HEADING[0]:
                continue
            if len(words) != len(HEADING):
                found = counted(len(words), "column")
                fault(f"{where}: {found}; wanted {len(HEADING)}, with commas between: {','.join(HEADING)}")
                continue
            label, place = label_of(words[1], classes, where, fault), _place(words[2], words[3])
            if place is None:
                fault(f"{where}: x {words[2]!r} and y {words[3]!r} are not both numbers")
            elif label is not None:
                yield words[0], Point(label, *place, where)
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(path: Path, classes: Sequence[str], fault: Fault) -> Iterator[tuple[str, Point]]:
    for name, clicks in parse_json(path, "an object of image id to a list of points").items():
        if not isinstance(clicks, list):
            fault(f"{path}: {name!r} has a JSON {type(clicks).__name__}; wanted a list of points")
            continue
        for number, click in enumerate(clicks, 1):
            where = f"{path}: point {number} of {name!r}"
            if not isinstance(click, dict) or not {"cls", "x", "y"} <= click.keys():
                fault(f"{where} lacks one of the keys 'cls', 'x', 'y'")
                continue
            label, place = click["cls"], _place(click["x"], click["y"])
            if place is None:
                fault(f"{where}: x {click['x']!r:.40} and y {click['y']!r:.40} are not both numbers")
            elif not isinstance(label, int) or not 1 <= label < len(classes):
                fault(f"{where}: cls {label!r:.40}; wanted a class index, 1 to {len(classes) - 1}")
            else:
                yield name, Point(label, *place, where)


def _place(x: Any, y: Any) -> tuple[int, int] | None:
    """The pixel of two coordinates; None where they are no numbers."""
    try:
        return math.floor(float(x)), math.floor(float(y))
    except (TypeError, ValueError, OverflowError):
        return None
