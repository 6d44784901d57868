"""Image tags: which source they come from, from names to class indices, and tags taken from masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.faults import Fault, passing_on, stop
from pseudolabel.data.lists import background_name
from pseudolabel.data.names import nfc
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.tag_tables import read_table, strange_name
from pseudolabel.errors import InputError
from pseudolabel.options.fields import nearest
from pseudolabel.runtime.files import stands

TABLE = "tags.csv"
"""Name of the tag table in a data set's own folder."""


def choose_source(
    layout: str, root: Path, wanted: str, tags_file: Path | None, offered: tuple[str, ...]
) -> tuple[str, Path | None]:
    """Decide where tags come from.

    Args:
        layout: Name of the layout, for the error.
        root: Folder of the data set, which may hold a ``tags.csv``.
        wanted: What the user asked for; ``auto`` is the table given, else the first source offered. Evaluation asks for
            ``none``, since it needs no tags: the same as ``auto`` unless the layout can save time by it and offers it.
        tags_file: The table given, if any.
        offered: Sources of this layout.

    Returns:
        The source, and the path of the table where that is ``csv``.

    Raises:
        InputError: The layout has no such source, or the table and the source contradict each other.
    """
    automatic = wanted == "auto" or (wanted == "none" and wanted not in offered)
    source = ("csv" if tags_file else offered[0]) if automatic else wanted
    if source not in offered:
        choices = [name for name in offered if name != "none"]
        raise InputError(f"--tag-source {source} is not for --dataset {layout}; wanted auto, {', '.join(choices)}")
    if source != "csv":
        if tags_file:
            raise InputError(f"--tags-file is not read with --tag-source {source}; leave one of them out")
        return source, None
    if tags_file is None and not stands(root / TABLE):
        raise InputError(f"--tag-source csv needs --tags-file, or a {TABLE} in {root}")
    return source, tags_file or root / TABLE


def tag_indices(names: Iterable[str], classes: Sequence[str], where: str, fault: Fault = stop) -> tuple[int, ...]:
    """Class indices of some names, ascending, each once.

    Args:
        names: Class names as some file gives them.
        classes: The known names, background first, which is no tag.
        where: File and line, to begin a fault with.
        fault: Told of every unknown name.
    """
    index = {name: number for number, name in enumerate(classes) if number}
    found = set()
    for name in dict.fromkeys(map(nfc, names)):
        if name in index:
            found.add(index[name])
        else:
            known = list(index)
            offer = f"; known: {', '.join(known[:6])}{' ...' if len(known) > 6 else ''}"
            complaint = strange_name(name)
            fault(f"{where}: {complaint or f'unknown class {name!r}{nearest(name, known) or offer}'}")
    return tuple(sorted(found))


def label_of(name: str, classes: Sequence[str], where: str, fault: Fault = stop) -> int | None:
    """The class index of a name, 0 for the background's; None where ``fault`` was told that there is no such class."""
    if background_name(name) and name not in classes[1:]:
        return 0
    found = tag_indices((name,), classes, where, fault)
    return found[0] if found else None


def csv_tags(records: Iterable[Record], table: Path, classes: Sequence[str], fault: Fault = stop) -> list[Record]:
    """The records with the tags of a table; None where it does not name an image. All its rows are checked."""
    rows = read_table(table, fault).rows
    tags = {name: tag_indices(row.names, classes, row.where, fault) for name, row in rows.items()}
    return [replace(record, tags=tags.get(record.id)) for record in records]


def mask_tags(record: Record, read_mask: Callable[[Record], np.ndarray], fault: Fault = stop) -> tuple[int, ...] | None:
    """The classes in an image's mask, None where ``fault`` is told of the mask: an oracle, not weak labels."""
    with passing_on(fault):
        present = np.bincount(read_mask(record).ravel(), minlength=256).nonzero()[0]
        return tuple(int(label) for label in present if label not in (0, 255))
    return None


def write_table(dataset: Dataset, file: TextIO) -> int:
    """Write a data set's tags as the CSV that ``tag_tables.read_table`` reads.

    Returns:
        How many images it names; those that nobody tagged are left out.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "tags"])
    rows = [(record.id, record.tags) for record in dataset.records if record.tags is not None]
    writer.writerows((name, ";".join(dataset.classes[tag] for tag in tags)) for name, tags in rows)
    return len(rows)


def save_table(dataset: Dataset, path: Path) -> int:
    """As ``write_table``, into a file that appears complete or not at all; an older one is replaced.

    Raises:
        InputError: What has its name is no regular file.
        PseudolabelError: It cannot be written.
    """
    table = io.StringIO(newline="")
    count = write_table(dataset, table)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(table.getvalue().encode())
    return count
