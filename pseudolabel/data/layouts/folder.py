"""Any folder of images: with a table of tags, or with one folder a class.

Images lie anywhere below ``images``, or below the root where there is no such folder; an id is the path without its
ending. Tags come from ``tags.csv`` or the table given, else from the folders, of which the first one names the class.
``classes.txt`` names the classes in index order; without it they are those of all tags, sorted. Masks, where there are
any, are ``masks/ID.png``.

A split is ``SPLIT.txt`` in the root or a path to any list. ``all`` is every image, and so is the default ``train``
where the root holds no list at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.ground_truth import find_mask, index_masks, read_mask_file
from pseudolabel.data.image_files import NAMES
from pseudolabel.data.lists import (
    checked_classes,
    find_list,
    index_images,
    no_image,
    no_list,
    pictures_left_out,
    read_classes,
    read_ids,
)
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.tags import TABLE, Row, choose_source, mask_tags, read_table, tag_indices
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.files import stands

_MASKS = "masks"
_CLASSES = "classes.txt"


def load(root: Path, split: str, tag_source: str, tags_file: Path | None, fault: Fault = stop) -> Dataset:
    """Open one split.

    Args:
        root: Folder of the data set.
        split: Name of a list, a path to one, or ``all``.
        tag_source: ``auto``, ``csv``, ``folders`` or ``masks``.
        tags_file: CSV of tags.
        fault: Told of everything wrong with single images; what it concerns is left out.

    Raises:
        DatasetError: There are no images, or ``fault`` raised.
        InputError: The split or the tag source does not exist.
    """
    folder = _photographs(root)
    images = index_images(folder, fault, skip=(_MASKS,))
    if not images:
        raise DatasetError(f"{folder} holds no image; wanted {NAMES} files")
    weak = ("csv", "folders") if stands(root / TABLE) else ("folders", "csv")
    source, table = choose_source("folder", root, tag_source, tags_file, (*weak, "masks"))
    rows = _rows(images, folder, source, table, fault)
    classes = _classes(root, rows, source)
    tags = {name: tag_indices(row.names, classes, row.where, fault) for name, row in rows.items()}
    ids, split = _ids(root, split, images, fault)
    masks = index_masks((root / _MASKS,))
    records = []
    for name in ids:
        if name in images:
            records.append(Record(name, images[name], tags.get(name), find_mask(name, masks, (root / _MASKS,))))
        else:
            fault(no_image(name, folder))
    read_mask = partial(read_mask_file, classes=len(classes) - 1)
    if source == "masks":
        records = [replace(item, tags=mask_tags(item, read_mask, fault)) if item.mask else item for item in records]
    tags_file = tags_file.resolve() if tags_file else None
    notes = pictures_left_out(folder, images, skip=(_MASKS,))
    return Dataset(
        "folder",
        root,
        split,
        classes,
        tuple(records),
        source,
        read_mask,
        tags_file,
        mask_folders=(root / _MASKS,),
        notes=notes,
    )


def require_apart(root: Path, scribbles: Path) -> None:
    """Refuse scribbles that would be taken for photographs.

    Args:
        root: Folder of the data set.
        scribbles: Folder of the scribbles, absolute.

    Raises:
        InputError: There are PNG files below it, and it lies among the photographs.
    """
    folder = _photographs(root)
    if scribbles.is_relative_to(folder) and any(scribbles.rglob("*.png")):
        raise InputError(
            f"--scribbles {scribbles} lies among the photographs of {folder} and would be taken for some; "
            + ("keep it elsewhere" if folder != root else f"move the photographs to {root / 'images'}")
        )


def _photographs(root: Path) -> Path:
    """Where the images lie."""
    return root / "images" if (root / "images").is_dir() else root


def _rows(images: Mapping[str, Path], folder: Path, source: str, table: Path | None, fault: Fault) -> dict[str, Row]:
    """Class names by image id, as the table or the folders give them."""
    if table is not None:
        rows = read_table(table, fault)
        for name in [name for name in rows if name not in images]:
            fault(f"{rows.pop(name).where}: {no_image(name, folder)}")
        return rows
    if source == "folders":
        first = {name: name.partition("/")[0] for name in images if "/" in name}
        return {name: Row(str(folder / label), (label,)) for name, label in first.items()}
    return {}


def _classes(root: Path, rows: Mapping[str, Row], source: str) -> tuple[str, ...]:
    if stands(root / _CLASSES):
        return read_classes(root / _CLASSES)
    if source == "masks":
        raise InputError(f"--tag-source masks needs {root / _CLASSES}, which names the labels in the masks")
    names = sorted({name for row in rows.values() for name in row.names})
    return checked_classes(root, names) if names else ("background",)


def _ids(root: Path, split: str, images: Mapping[str, Path], fault: Fault) -> tuple[list[str], str]:
    """The ids of a split, and its name for later stages."""
    found = find_list(split, (root,)) if split != "classes" else None
    if found is not None:
        return read_ids(found[0], fault), found[1]
    known = sorted(path.stem for path in root.glob("*.txt") if path.name != _CLASSES)
    if split == "all" or (split == "train" and not known):
        return list(images), split
    raise no_list(split, (root,), [*known, "all"] if known else ["train", "all"])
