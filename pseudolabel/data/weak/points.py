"""Lists of labelled points: a CSV of ``id,class,x,y``, or the JSON of "What's the Point" (Bearman et al. 2016).

The JSON is an object of image id to a list of clicks; of each, ``x`` and ``y`` are read (pixels from 0) and ``cls``,
the class index (VOC's classes in alphabetical order from 1; 0 is background). Other keys, such as ``rank``, play no
part. Lists may cover more images than are wanted: of those, nothing is checked.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.data.faults import Fault
from pseudolabel.data.frames import are_shares, no_pixels
from pseudolabel.data.json_files import parse_json
from pseudolabel.data.lists import read_text, unsafe
from pseudolabel.data.shapes import Point
from pseudolabel.data.tags import label_of
from pseudolabel.data.weak.manifest import MANIFEST
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import stands
from pseudolabel.runtime.formatting import counted

TABLE = "points.csv"
"""Name of the table in a folder of points."""

HEADING = ("id", "class", "x", "y")
"""The columns of the table."""


Row = tuple[str, str, int | None, tuple[float, float] | None, bool]
"""One entry: image id, where it stands, class index and place (None for what was at fault), and ``Point.between``."""


def read_points(
    path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault
) -> tuple[dict[str, tuple[Point, ...]], dict[str, str]]:
    """Read a list of points, or several.

    Args:
        path: A ``.csv`` or ``.json`` file, a folder with a ``points.csv``, or else one with JSON files, which are all
            read.
        wanted: The ids to keep.
        classes: Class names, background first, which may have points too.
        fault: Told of every faulty entry, which is left out.

    Returns:
        Points by image id; and of ids that are not wanted, the first entry that has each.

    Raises:
        DatasetError: A file is unreadable, or neither of the two; or the folder has none.
    """
    found: dict[str, list[Point]] = {}
    strays: dict[str, str] = {}
    for file in _files(path):
        rows = _json_rows if file.suffix.lower() == ".json" else _csv_rows
        places: list[float] = []
        points: list[tuple[str, Point]] = []
        others: dict[str, str] = {}
        for name, where, label, place, between in rows(file, wanted, classes, fault):
            places += place or ()
            if complaint := unsafe(name):
                fault(f"{where}: id {name!r} {complaint}")
            elif name not in wanted:
                others.setdefault(name, where)
            elif label is not None and place is not None:
                x, y = map(math.floor, place)
                points.append((name, Point(label, x, y, where, between)))
        if are_shares(places):
            fault(no_pixels(file))
            continue
        strays = others | strays
        for name, point in points:
            found.setdefault(name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}, strays


def _files(path: Path) -> list[Path]:
    """The file, or those in a folder."""
    if not path.is_dir():
        return [path]
    if stands(path / TABLE):
        return [path / TABLE]
    files = [file for file in sorted(path.glob("*.json")) if file.name != MANIFEST]
    if not files:
        raise DatasetError(
            f"{path} holds no {TABLE} and no .json file; wanted lines of {','.join(HEADING)}, "
            "or JSON of What's the Point"
        )
    return files


def _quiet(message: str) -> None:
    """What is wrong with an image that is not wanted is nobody's concern."""


def _csv_rows(path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault) -> Iterator[Row]:
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
            tell = fault if words[0] in wanted else _quiet
            label, place = label_of(words[1], classes, where, tell), _place(words[2], words[3])
            if place is None:
                tell(f"{where}: x {words[2]!r} and y {words[3]!r} are not both numbers")
            yield words[0], where, label, place, False
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault) -> Iterator[Row]:
    content = parse_json(path, "an object of image id to a list of points")
    if {"images", "annotations"} <= content.keys():
        raise DatasetError(
            f"{path} is COCO's JSON; wanted an object of image id to a list of points, or --boxes {path}"
        )
    for name, clicks in content.items():
        tell = fault if name in wanted else _quiet
        if not isinstance(clicks, list):
            tell(f"{path}: {name!r} has a JSON {type(clicks).__name__}; wanted a list of points")
            yield name, str(path), None, None, False
            continue
        for number, click in enumerate(clicks, 1):
            where = f"{path}: point {number} of {name!r}"
            if not isinstance(click, dict) or not {"cls", "x", "y"} <= click.keys():
                tell(f"{where} lacks one of the keys 'cls', 'x', 'y'")
                yield name, where, None, None, False
                continue
            label, place = click["cls"], _place(click["x"], click["y"])
            if place is None:
                tell(f"{where}: x {click['x']!r:.40} and y {click['y']!r:.40} are not both numbers")
            elif type(label) is not int or not 0 <= label < len(classes):
                tell(f"{where}: cls {label!r:.40}; wanted a class index, 1 to {len(classes) - 1}, or 0 for background")
                label = None
            yield name, where, label, place, any(isinstance(click[axis], float) for axis in "xy")


def _place(x: Any, y: Any) -> tuple[float, float] | None:
    """Two coordinates; None where they are no numbers."""
    try:
        place = float(x), float(y)
    except (TypeError, ValueError, OverflowError):
        return None
    return place if all(map(math.isfinite, place)) else None
