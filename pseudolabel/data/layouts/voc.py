"""The PASCAL VOC layout: ``JPEGImages``, ``Annotations``, ``SegmentationClass`` and ``ImageSets``.

Any ids and image formats; ids may hold folders. ``classes.txt`` in the root, or labelme's or CVAT's file, replaces
VOC's 20 class names. A split is ``ImageSets/Segmentation/SPLIT.txt``, else ``ImageSets/Main/SPLIT.txt``, else a path
to any list. Tags come from the annotations' top-level ``object/name`` (objects marked difficult count, parts of objects
do not), from a CSV, or, by name only, from the masks. A mask is looked for in
``SegmentationClass``, then in ``SegmentationClassAug``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pseudolabel.data.class_lists import class_file, read_classes
from pseudolabel.data.faults import Fault, passing_on, stop
from pseudolabel.data.ground_truth import find_mask, index_masks
from pseudolabel.data.lists import find_list, index_images, no_image, no_list, read_ids
from pseudolabel.data.mask_files import mask_reader
from pseudolabel.data.names import file_named
from pseudolabel.data.records import Dataset, MaskValues, Record
from pseudolabel.data.tags import choose_source, csv_tags, mask_tags, tag_indices
from pseudolabel.data.xml_files import read_annotation
from pseudolabel.errors import DatasetError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes in index order."""

_LISTS = ("ImageSets/Segmentation", "ImageSets/Main")
_MASKS = ("SegmentationClass", "SegmentationClassAug")


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
        root: Folder that holds ``JPEGImages``.
        split: Name of a list, or a path to one.
        tag_source: ``auto``, ``xml``, ``csv`` or ``masks``; ``none`` where nobody needs them.
        tags_file: CSV of tags.
        fault: Told of everything wrong with single images; what it concerns is left out.
        values: What the values in masks mean, where the user says so.

    Raises:
        DatasetError: The layout is not there, or ``fault`` raised.
        InputError: The split or the tag source does not exist.
    """
    photographs = root / "JPEGImages"
    if not photographs.is_dir():
        inner = [*sorted(root.glob("*/JPEGImages")), *sorted(root.glob("VOCdevkit/*/JPEGImages"))]
        other = "; wanted the VOC layout, or --dataset folder for photographs in any folder"
        hint = f"; did you mean --root {inner[0].parent}?" if inner else other
        raise DatasetError(f"{root} has no folder JPEGImages{hint}")
    source, table = choose_source("voc", root, tag_source, tags_file, ("xml", "csv", "masks", "none"))
    names = class_file(root)
    classes = CLASSES if names is None else read_classes(names)
    folders = tuple(root / folder for folder in _LISTS)
    found = find_list(split, folders)
    if found is None:
        raise no_list(split, folders, sorted({path.stem for folder in folders for path in folder.glob("*.txt")}))
    images = index_images(photographs, fault)
    masks = tuple(root / folder for folder in _MASKS)
    drawn = index_masks(masks)
    records = []
    for name in read_ids(found[0], fault):
        if name in images:
            records.append(Record(name, images[name], None, find_mask(name, drawn, masks)))
        else:
            fault(no_image(name, photographs))
    read_mask = mask_reader(classes, values)
    if source == "masks":
        records = [replace(item, tags=mask_tags(item, read_mask, fault)) if item.mask else item for item in records]
    elif table is not None:
        records = csv_tags(records, table, classes, fault)
    elif source == "xml":
        records = [replace(record, tags=_xml_tags(root, record.id, classes, fault)) for record in records]
    tags_file = tags_file.resolve() if tags_file else None
    return Dataset("voc", root, found[1], classes, tuple(records), source, read_mask, tags_file, mask_folders=masks)


def _xml_tags(root: Path, name: str, classes: tuple[str, ...], fault: Fault) -> tuple[int, ...] | None:
    path = file_named(root / "Annotations", f"{name}.xml")
    names: list[str] | None = None
    with passing_on(fault):
        names = read_object_names(path)
    return None if names is None else tag_indices(names, classes, str(path), fault)


def read_object_names(path: Path) -> list[str] | None:
    """Class names of the objects that a VOC annotation lists, in file order; None where there is no such file.

    Raises:
        DatasetError: The file is no VOC annotation, or declares XML entities, which can expand without end.
    """
    annotation = read_annotation(path)
    if annotation is None:
        return None
    names = [(item.findtext("name") or "").strip() for item in annotation.findall("object")]
    if "" in names:
        raise DatasetError(f"{path}: object {names.index('') + 1} has no <name>")
    return names
