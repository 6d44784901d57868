"""Any folder of images: with a table of tags, or with one folder a class.

Images lie anywhere below ``images``, or below the root where there is no such folder; an id is the path without its
ending. Tags come from ``tags.csv`` or the table given, else from the folders, of which the first one names the class.
``classes.txt`` (or labelme's or CVAT's file) names the classes in index order; without it they are those of all tags,
sorted. Masks, where there are any, are ``masks/ID.png``.

A split is ``SPLIT.txt`` in the root, a path to any list, or, where all images lie in folders called ``train``, ``val``
and the like, such a folder; the folder in it names the class. ``all`` is every image, and so is the default ``train``
where there are neither lists nor such folders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pseudolabel.data.class_lists import FILES, class_file, read_classes
from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.ground_truth import find_mask, index_masks
from pseudolabel.data.image_files import NAMES
from pseudolabel.data.layouts.folder_names import Folders, label_maps, read_folders, split_name
from pseudolabel.data.lists import (
    background_name,
    checked_classes,
    find_list,
    index_images,
    no_image,
    no_list,
    pictures_left_out,
    read_ids,
    read_text,
)
from pseudolabel.data.mask_files import mask_reader
from pseudolabel.data.names import nfc
from pseudolabel.data.records import Dataset, MaskValues, Record
from pseudolabel.data.tag_tables import Row, TagTable, plain_names, read_table
from pseudolabel.data.tags import TABLE, choose_source, mask_tags, tag_indices
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.files import stands

_MASKS = "masks"


def load(
    root: Path,
    split: str,
    tag_source: str,
    tags_file: Path | None,
    fault: Fault = stop,
    values: MaskValues | None = None,
) -> Dataset:
    """Open one split.

    Args:
        root: Folder of the data set.
        split: Name of a list, a path to one, or ``all``.
        tag_source: ``auto``, ``csv``, ``folders`` or ``masks``.
        tags_file: CSV of tags.
        fault: Told of everything wrong with single images; what it concerns is left out.
        values: What the values in masks mean, where the user says so.

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
    names = class_file(root)
    listed = () if names is None else read_classes(names)
    images = _without_label_maps(images, listed, root, folder, fault)
    folders = read_folders(images, listed)
    found = _table(images, folder, folders, source, table, fault)
    if table is not None and not listed:
        found = found._replace(rows=plain_names(found.rows, fault, root / FILES[0]))
    classes = listed or _classes(root, found, source)
    tags = {name: tag_indices(row.names, classes, row.where, fault) for name, row in found.rows.items()}
    ids, split = _ids(root, split, images, folders, fault)
    masks = index_masks((root / _MASKS,))
    records = []
    for name in ids:
        if name in images:
            records.append(Record(name, images[name], tags.get(name), find_mask(name, masks, (root / _MASKS,))))
        else:
            fault(no_image(name, folder))
    read_mask = mask_reader(classes, values)
    if source == "masks":
        records = [replace(item, tags=mask_tags(item, read_mask, fault)) if item.mask else item for item in records]
    tags_file = tags_file.resolve() if tags_file else None
    notes = (*found.notes, *pictures_left_out(folder, images, skip=(_MASKS,)))
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


def _without_label_maps(
    images: dict[str, Path], listed: Collection[str], root: Path, folder: Path, fault: Fault
) -> dict[str, Path]:
    """The photographs without the label maps among them, of which ``fault`` is told."""
    labels = label_maps(images, listed)
    if labels:
        first = images[labels[0]].relative_to(folder)
        fault(
            f"{folder}: {len(labels)} label maps lie among the photographs (first: {first}); put photographs below "
            f"{root / 'images'} and label maps below {root / _MASKS}, under the same names, such as "
            f"images/train/a.jpg and {_MASKS}/train/a.png"
            + ("; or is it --dataset voc?" if (root / "JPEGImages").is_dir() else "")
        )
    return {name: path for name, path in images.items() if name not in set(labels)}


def _table(
    images: Mapping[str, Path], folder: Path, folders: Folders, source: str, table: Path | None, fault: Fault
) -> TagTable:
    """Class names by image id, as the table or the folders give them."""
    if table is not None:
        found = read_table(table, fault)
        for name in [name for name in found.rows if name not in images]:
            fault(f"{found.rows.pop(name).where}: {no_image(name, folder)}")
        return found
    if source != "folders":
        return TagTable({})
    if folders.complaint:
        fault(f"{folder}: {folders.complaint}")
    rows = {
        name: Row(str(folder / name.partition(f"{label}/")[0] / label), () if background_name(label) else (label,))
        for name, label in folders.classes.items()
    }
    return TagTable(rows, (), (f"{folder}: {folders.note}",) if folders.note else ())


def _classes(root: Path, table: TagTable, source: str) -> tuple[str, ...]:
    """The classes where no list names them."""
    if source == "masks":
        raise InputError(f"--tag-source masks needs {root / FILES[0]}, which names the labels in the masks")
    words = {name for row in table.rows.values() for name in row.names}.union(table.columns)
    names = sorted({nfc(word) for word in words})  # as some systems do not write file names
    return checked_classes(root, names) if names else ("background",)


def _lists(root: Path, images: Mapping[str, Path]) -> set[str]:
    """Names of the lists in the root: of its texts those that are called as splits are, or name an image."""
    found = set()
    for path in root.glob("*.txt"):
        if path.name in FILES:
            continue
        if split_name(path.stem):
            found.add(path.stem)
            continue
        with suppress(DatasetError):
            words = {line.strip() for line in read_text(path).split("\n")}
            words |= {line.split()[0] for line in words if line}  # of VOC's two columns
            if not words.isdisjoint(images):
                found.add(path.stem)
    return found


def _ids(root: Path, split: str, images: Mapping[str, Path], folders: Folders, fault: Fault) -> tuple[list[str], str]:
    """The ids of a split, and its name for later stages."""
    found = find_list(split, (root,)) if f"{split}.txt" not in FILES else None
    if found is not None:
        return read_ids(found[0], fault), found[1]
    known = sorted(_lists(root, images) | set(folders.splits))
    if split in folders.splits:
        return [name for name in images if name.startswith(f"{split}/")], split
    if split == "train" and not known:
        if folders.complaint:  # val would be among what is trained on
            fault(f"{_photographs(root)}: {folders.complaint}")
        return list(images), split
    if split == "all":
        return list(images), split
    raise no_list(split, (root,), [*known, "all"] if known else ["train", "all"])
