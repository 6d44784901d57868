"""The COCO layout: ``annotations/instances_SPLIT.json`` and the images that it names.

A split is the part of that file's name behind ``instances_``; else ``SPLIT.txt`` in the root or a path to any list of
ids, which are then looked for in every ``instances_*.json``; else a piece of the file's name (``train`` finds
``train2014``). An id is an image's ``file_name`` without its ending. Images lie in ``images/SPLIT``, ``SPLIT``,
``images`` or the root. Without a folder ``annotations``, Roboflow's layout is read: ``SPLIT/_annotations.coco.json``
beside its images.

Categories are numbered from 1 without gaps in the order of their ids (80 of them in COCO); their names come from the
file; one named background is the background. The classes of all annotations of an image are its tags, crowd regions
included, for there the class does occur.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from pseudolabel.data.faults import Fault, passing_on, stop
from pseudolabel.data.frames import stated_size
from pseudolabel.data.images import image_size
from pseudolabel.data.instances import Instance, InstanceMasks, read_box, read_shape
from pseudolabel.data.json_files import entries, parse_json, record_id
from pseudolabel.data.lists import background_name, checked_classes, find_list, no_list, read_ids, unsafe
from pseudolabel.data.names import file_named
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.tags import choose_source, csv_tags, mask_tags
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.files import stands

_PREFIX = "instances_"
_ROBOFLOW = "_annotations.coco.json"


def load(root: Path, split: str, tag_source: str, tags_file: Path | None, fault: Fault = stop) -> Dataset:
    """Open one split.

    Args:
        root: Folder that holds ``annotations``.
        split: As the module says.
        tag_source: ``auto``, ``instances``, ``csv`` or ``masks`` (drawn from the same annotations, less crowds).
        tags_file: CSV of tags.
        fault: Told of everything wrong with single images and annotations; what it concerns is left out.

    Raises:
        DatasetError: An annotation file is not what it should be, or ``fault`` raised.
        InputError: The split or the tag source does not exist.
    """
    source, table = choose_source("coco", root, tag_source, tags_file, ("instances", "csv", "masks"))
    files, wanted, split = _find_split(root, split, fault)
    missing = None if wanted is None else set(wanted)
    records: dict[str, Record] = {}
    masks = InstanceMasks((), {}, {}, {})
    classes: tuple[str, ...] = ()
    for path in files:
        with _no_collection():
            names, drawn, found = _read_instances(path, root, missing, fault)
        if classes and (names, drawn.category_ids) != (classes, masks.category_ids):
            raise DatasetError(f"{path} has other categories than {files[0]}; use one of them alone as --split")
        classes, masks = names, masks.merged(drawn) if classes else drawn
        records |= {record.id: record for record in found}
        if missing is not None and not missing:
            break
    for name in sorted(missing or ()):
        folder = root if files[0].name == _ROBOFLOW else files[0].parent
        fault(f"id {name!r} is in none of {', '.join(str(path.relative_to(folder)) for path in files)} in {folder}")
    if wanted is not None:
        records = {name: records[name] for name in wanted if name in records}
    tagged = list(records.values())
    if source == "masks":
        tagged = [replace(record, tags=mask_tags(record, masks, fault)) for record in tagged]
    elif table is not None:
        tagged = csv_tags(tagged, table, classes, fault)
    tags_file = tags_file.resolve() if tags_file else None
    return Dataset("coco", root, split, classes, tuple(tagged), source, masks, tags_file)


def category_ids(dataset: Dataset) -> tuple[int, ...]:
    """The data set's own number of each class, from class index 1 on: COCO's category ids, elsewhere the index."""
    if isinstance(dataset.read_mask, InstanceMasks):
        return dataset.read_mask.category_ids
    return tuple(range(1, len(dataset.classes)))


def image_ids(dataset: Dataset) -> dict[str, int | str]:
    """The data set's own name of each image by record id: COCO's image id, elsewhere the record's id."""
    if isinstance(dataset.read_mask, InstanceMasks):
        return dict(dataset.read_mask.image_ids)
    return {record.id: record.id for record in dataset.records}


def _find_split(root: Path, split: str, fault: Fault) -> tuple[list[Path], list[str] | None, str]:
    """The annotation files of a split, the ids to keep (None: all), and the split's name for later stages."""
    folder = root / "annotations"
    files = sorted(folder.glob(f"{_PREFIX}*.json"))
    names = {path.stem.removeprefix(_PREFIX): path for path in files}
    if not files:
        if stands(root / _ROBOFLOW):
            raise InputError(f"{root} is one split of Roboflow's layout; pass --root {root.parent} --split {root.name}")
        folder, files = root, sorted(root.glob(f"*/{_ROBOFLOW}"))
        names = {path.parent.name: path for path in files}
    if not files:
        raise DatasetError(f"{root / 'annotations'} holds no {_PREFIX}*.json; wanted the COCO layout")
    if split in names:
        return [names[split]], None, split
    found = find_list(split, (root,))
    if found is not None:
        return files, read_ids(found[0], fault), found[1]
    matching = sorted(name for name in names if split in name)
    if len(matching) > 1:
        raise InputError(f"--split {split} could be any of {', '.join(matching)} in {folder}; name one of them")
    if not matching:
        raise no_list(split, (root,), sorted(names))
    return [names[matching[0]]], None, matching[0]


def _read_instances(
    path: Path, root: Path, missing: set[str] | None, fault: Fault
) -> tuple[tuple[str, ...], InstanceMasks, list[Record]]:
    """Class names, ground truth and records of one annotation file: of all images, or of those still ``missing``."""
    content = parse_json(path)
    categories = _categories(path, content)
    ids = [item["id"] for item in categories]
    background = [item["id"] for item in categories if background_name(item["name"])]
    categories = [item for item in categories if item["id"] not in background]
    classes = checked_classes(path, [item["name"] for item in categories])
    if len(set(ids)) < len(ids):
        raise DatasetError(f"{path}: two categories have the same id; wanted one id a category")
    label_of = dict.fromkeys(background, 0) | {item["id"]: label for label, item in enumerate(categories, 1)}
    images = _index_photographs(path, root, content, missing, fault)
    instances: dict[int, list[Instance]] = {number: [] for number in images}
    tags: dict[int, set[int]] = {number: set() for number in images}
    known = {item.get("id") for item in content["images"] if isinstance(item, dict) and isinstance(item.get("id"), int)}
    for item in entries(path, content, "annotations", {"image_id": int, "category_id": int}, fault):
        number, category = item["image_id"], item["category_id"]
        if number not in known:
            fault(f"{path}: an annotation has image_id {number}, which no image has")
        elif category not in label_of:
            fault(f"{path}: an annotation of image {number} has category_id {category}, which no category has")
        elif number in images:
            tags[number] |= {label_of[category]} - {0}
            with passing_on(fault):
                where = f"{path}: annotation {item.get('id', '?')} of image {number}"
                instances[number].append(_instance(item, label_of[category], images[number][1], where))
    masks = InstanceMasks(
        tuple(item["id"] for item in categories),
        {record.id: number for number, (record, _) in images.items()},
        {record.id: size for record, size in images.values()},
        {record.id: tuple(instances[number]) for number, (record, _) in images.items()},
    )
    return classes, masks, [replace(record, tags=tuple(sorted(tags[n]))) for n, (record, _) in images.items()]


def _categories(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The categories in the order of their ids, less Roboflow's 0: it stands above all others and is of no object."""
    found = sorted(entries(path, content, "categories", {"id": int, "name": str}, stop), key=itemgetter("id"))
    if len(found) < 2 or found[0]["id"] != 0 or found[0].get("supercategory") != "none":
        return found
    above = all(item.get("supercategory") == found[0]["name"] for item in found[1:])
    marks = content.get("annotations")
    used = isinstance(marks, list) and any(isinstance(mark, dict) and mark.get("category_id") == 0 for mark in marks)
    return found[1:] if above and not used else found


def _instance(item: Mapping[str, Any], label: int, size: tuple[int, int], where: str) -> Instance:
    """One annotation, with its box where it has no shape."""
    crowd, shape = bool(item.get("iscrowd")), read_shape(item.get("segmentation"), size, where)
    if shape is not None:
        return Instance(label, crowd, shape)
    return Instance(label, crowd, None, read_box(item.get("bbox"), size), where)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off: looking through millions of new objects again and again doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _index_photographs(
    path: Path, root: Path, content: Mapping[str, Any], missing: set[str] | None, fault: Fault
) -> dict[int, tuple[Record, tuple[int, int]]]:
    """Records, without tags yet, and sizes by COCO's image id."""
    part = path.parent.name if path.name == _ROBOFLOW else path.stem.removeprefix(_PREFIX)
    short = part.rstrip("0123456789") or part
    folders = [root / "images" / part, root / part, root / "images" / short, root / short, root / "images", root]
    folders = [path.parent] if path.name == _ROBOFLOW else folders
    folders = [folder for folder in folders if folder.is_dir()]
    found: dict[int, tuple[Record, tuple[int, int]]] = {}
    names: set[str] = set()
    for item in entries(path, content, "images", {"id": int, "file_name": str}, fault):
        name = record_id(item["file_name"])
        if complaint := unsafe(item["file_name"]):
            fault(f"{path}: file_name {item['file_name']!r} {complaint}")
        elif item["id"] in found or name in names:
            fault(f"{path}: image {item['id']} ({item['file_name']}) stands twice; remove one of them")
        elif complaint := _no_size(item):
            fault(f"{path}: image {item['id']} has {complaint}")
        elif missing is None or name in missing:
            names.add(name)
            if missing is not None:
                missing.remove(name)
            places = [file_named(folder, item["file_name"]) for folder in folders]
            image = next((place for place in places if stands(place)), None)
            if image is None:
                fault(f"{path}: image {item['file_name']!r} is in none of {', '.join(map(str, folders))}")
            else:
                with passing_on(fault):
                    size = stated_size(item.get("height"), item.get("width")) or image_size(image)
                    found[item["id"]] = (Record(name, image, None), size)
    return found


def _no_size(item: Mapping[str, Any]) -> str | None:
    """What is wrong with the height or width of an image's entry; both may be left out, or 0."""
    for key in ("height", "width"):
        side = item.get(key)
        if side is not None and (type(side) not in (int, float) or not 0 <= side < 2**31 or side % 1):
            return f"{key} {side!r:.40}; wanted pixels"
    return None
