"""Boxes: a folder of VOC's XML annotations, or COCO's instances JSON.

VOC counts pixels from 1 and both corners belong to a box. COCO's ``bbox`` is left, top, width and height in pixels from
0, with fractions. Boxes of crowds bound no single object and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from pseudolabel.data.faults import Fault, passing_on
from pseudolabel.data.json_files import entries, parse_json, record_id
from pseudolabel.data.lists import files_below
from pseudolabel.data.shapes import Box
from pseudolabel.data.tags import tag_indices
from pseudolabel.data.xml_files import number_in, read_annotation
from pseudolabel.errors import DatasetError

_FARTHEST = 2**31  # pixels; no image is larger, and a float holds it exactly

Boxes = Mapping[str, tuple[Box, ...]]


def read_boxes(
    path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault
) -> tuple[Boxes, dict[str, str]]:
    """Read boxes.

    Args:
        path: A folder of ``ID.xml``, or a ``.json`` file.
        wanted: The ids to keep.
        classes: Class names, background first, which has no boxes.
        fault: Told of every faulty entry, which is left out.

    Returns:
        Boxes by image id, unchecked against their image; and of ids that are not wanted, the entry that has each.

    Raises:
        DatasetError: The folder holds no XML file, or the file is not COCO's JSON.
    """
    if not path.is_dir():
        if path.suffix.lower() == ".xml":
            raise DatasetError(f"--boxes {path} is one image's annotation; wanted the folder that holds it")
        return _coco_boxes(path, wanted, classes, fault)
    files = dict(files_below(path, (".xml",)))
    if not files:
        raise DatasetError(f"{path} holds no .xml file; wanted VOC's annotations, or COCO's instances JSON")
    found: dict[str, tuple[Box, ...]] = {}
    for name, file in files.items():
        if name in wanted:
            with passing_on(fault):
                found[name] = _voc_boxes(file, classes, fault)
    strays = {name: str(file) for name, file in files.items() if name not in wanted}
    return {name: boxes for name, boxes in found.items() if boxes}, strays


def check_box(box: Box, size: tuple[int, int], fault: Fault) -> Box | None:
    """A box in whole pixels of its image, rounded outwards, so that it still bounds its object.

    Args:
        box: As read.
        size: Height and width of its image.
        fault: Told if the box has no extent, swapped corners, or lies beyond the border by more than half a pixel.

    Returns:
        The box with edges int, inside the image; None where there was a fault.
    """
    height, width = size
    edges = f"box from ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g}), counted from 0,"
    if box.right < box.left or box.bottom < box.top:
        fault(f"{box.where}: {edges} has swapped corners or a negative extent")
    elif box.right == box.left or box.bottom == box.top:
        fault(f"{box.where}: {edges} has no extent")
    elif min(box.left, box.top) < -0.5 or box.right > width + 0.5 or box.bottom > height + 0.5:
        fault(f"{box.where}: {edges} goes beyond the border of its image, which is {width} x {height} pixels")
    else:
        left, top = max(0, math.floor(box.left)), max(0, math.floor(box.top))
        right, bottom = min(width, math.ceil(box.right)), min(height, math.ceil(box.bottom))
        if left < right and top < bottom:
            return box._replace(left=left, top=top, right=right, bottom=bottom)
        fault(f"{box.where}: {edges} has no extent within its image, which is {width} x {height} pixels")
    return None


def annotation_text(filename: str, size: tuple[int, ...], boxes: Sequence[Box], classes: Sequence[str]) -> str:
    """Boxes in whole pixels as VOC's XML, whose pixels count from 1 and whose corners both belong to a box.

    Args:
        filename: Name of the photograph.
        size: Its height and width.
        boxes: As ``read_boxes`` would give them back.
        classes: Class names by index.
    """
    objects = "".join(
        f"  <object><name>{escape(classes[box.label])}</name><bndbox><xmin>{box.left + 1:g}</xmin>"
        f"<ymin>{box.top + 1:g}</ymin><xmax>{box.right:g}</xmax><ymax>{box.bottom:g}</ymax></bndbox></object>\n"
        for box in boxes
    )
    return (
        f"<annotation>\n  <filename>{escape(filename)}</filename>\n"
        f"  <size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def _voc_boxes(file: Path, classes: Sequence[str], fault: Fault) -> tuple[Box, ...]:
    found = []
    for number, item in enumerate(read_annotation(file).findall("object"), 1):
        where = f"{file}: object {number}"
        label = tag_indices(((item.findtext("name") or "").strip(),), classes, where, fault)
        bounds = item.find("bndbox")
        if bounds is None:
            fault(f"{where} has no <bndbox>")
        elif label:
            with passing_on(fault):
                x0, y0, x1, y1 = (number_in(bounds, name, where) for name in ("xmin", "ymin", "xmax", "ymax"))
                # Both corners belong to the box, but where they coincide it is a mistake, not a box of one pixel.
                right, bottom = x1 - (x1 <= x0), y1 - (y1 <= y0)
                found.append(Box(label[0], x0 - 1, y0 - 1, right, bottom, where))
    return tuple(found)


def _coco_boxes(
    path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault
) -> tuple[Boxes, dict[str, str]]:
    content = parse_json(path)
    names = _image_names(path, content, fault)
    found: dict[str, list[Box]] = {name: [] for name in names.values() if name in wanted}
    labels: dict[int, tuple[int, ...]] = {}
    class_name = _category_names(path, content, fault)
    strays: dict[str, str] = {}
    for item in entries(path, content, "annotations", {"image_id": int, "category_id": int, "bbox": list}, fault):
        where = f"{path}: annotation {item.get('id', '?')} of image {item['image_id']}"
        number, name = item["category_id"], names.get(item["image_id"])
        if name is None:
            fault(f"{path}: an annotation has image_id {item['image_id']}, which no image has")
        elif name not in wanted:
            strays.setdefault(name, where)
        elif number not in class_name:
            fault(f"{where} has category_id {number}, which no category has")
        elif not _is_quadruple(item["bbox"]):
            fault(f"{where}: bbox {item['bbox']!r:.60}; wanted four numbers: left, top, width, height")
        else:
            if number not in labels:
                labels[number] = tag_indices((class_name[number],), classes, where, fault)
            if labels[number] and not item.get("iscrowd"):
                left, top, width, height = item["bbox"]
                found[name].append(Box(labels[number][0], left, top, left + width, top + height, where))
    return {name: tuple(boxes) for name, boxes in found.items() if boxes}, strays


def _image_names(path: Path, content: Mapping[str, Any], fault: Fault) -> dict[int, str]:
    """The record ids of COCO's images by their numbers; of two that share either, the first."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for item in entries(path, content, "images", {"id": int, "file_name": str}, fault):
        name = record_id(item["file_name"])
        if item["id"] in names or name in taken:
            fault(f"{path}: image {item['id']} ({item['file_name']}) stands twice; remove one of them")
        else:
            names[item["id"]] = name
            taken.add(name)
    return names


def _category_names(path: Path, content: Mapping[str, Any], fault: Fault) -> dict[int, str]:
    """The names of COCO's categories by their numbers; of two that share one, the first."""
    names: dict[int, str] = {}
    for item in entries(path, content, "categories", {"id": int, "name": str}, fault):
        if item["id"] in names:
            fault(f"{path}: category {item['id']} ({item['name']}) stands twice; remove one of them")
        else:
            names[item["id"]] = item["name"]
    return names


def _is_quadruple(values: Sequence[Any]) -> bool:
    return len(values) == 4 and all(isinstance(item, int | float) and abs(item) < _FARTHEST for item in values)
