"""Boxes: a folder of VOC's XML annotations, or COCO's instances JSON.

VOC counts pixels from 1 and both corners belong to a box. Other tools write the same XML with pixels from 0, and edges
instead of corners; so are all files of a folder read where a corner of any of them is 0. COCO's ``bbox`` is left, top,
width and height in pixels from 0, with fractions. Boxes of crowds bound no single object and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from pseudolabel.data.faults import Fault, passing_on
from pseudolabel.data.frames import are_shares, no_pixels, other_frame, size_in, stated_size
from pseudolabel.data.json_files import entries, parse_json, record_id
from pseudolabel.data.lists import files_below
from pseudolabel.data.records import Record
from pseudolabel.data.shapes import Box
from pseudolabel.data.tags import tag_indices
from pseudolabel.data.xml_files import number_in, read_annotation
from pseudolabel.errors import DatasetError

_FARTHEST = 2**31  # pixels; no image is larger, and a float holds it exactly


class FoundBoxes(NamedTuple):
    """What a folder or file of boxes holds.

    Attributes:
        boxes: By image id, unchecked against their image.
        frames: Height and width of the images that they were drawn on, by image id, where that is stated.
        strays: Of ids that are not wanted, the entry that has each.
        notes: Lines about how they were read.
    """

    boxes: Mapping[str, tuple[Box, ...]]
    frames: Mapping[str, tuple[int, int]]
    strays: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_boxes(path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault) -> FoundBoxes:
    """Read boxes.

    Args:
        path: A folder of ``ID.xml``, or a ``.json`` file.
        wanted: The ids to keep.
        classes: Class names, background first, which has no boxes.
        fault: Told of every faulty entry, which is left out.

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
    corners: dict[str, list[Box]] = {}
    frames: dict[str, tuple[int, int]] = {}
    for name, file in files.items():
        if name in wanted:
            with passing_on(fault):
                corners[name], frame = _voc_corners(file, classes, fault)
                if frame is not None:
                    frames[name] = frame
    first = next((box for boxes in corners.values() for box in boxes if -0.5 < min(box.left, box.top) < 0.5), None)
    notes = () if first is None else (_COUNTED_FROM_0.format(path=path, where=first.where),)
    edges = _voc_edges if first is None else _no_change
    found = {name: tuple(map(edges, boxes)) for name, boxes in corners.items() if boxes}
    return FoundBoxes(found, frames, {name: str(file) for name, file in files.items() if name not in wanted}, notes)


_COUNTED_FROM_0 = (
    "{path}: a corner is 0 (first: {where}), but VOC counts pixels from 1; all boxes there are read as counted from 0"
)


def check_boxes(record: Record, size: tuple[int, int], fault: Fault) -> tuple[Box, ...]:
    """The boxes of an image as ``check_box`` gives them; none where they were drawn on an image of another size.

    Args:
        record: The image.
        size: Its height and width.
        fault: Told of every fault.
    """
    if record.boxes and record.frame not in (None, size):
        mend = "pass the photographs that the boxes were drawn on, or write the boxes for this size"
        fault(other_frame(record.boxes[0].where, record.frame or size, size, record.image, mend))
        return ()
    boxes = [check_box(box, size, fault) for box in record.boxes]
    return tuple(box for box in boxes if box is not None)


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


def _voc_corners(file: Path, classes: Sequence[str], fault: Fault) -> tuple[list[Box], tuple[int, int] | None]:
    """The boxes of one annotation with the numbers that stand there, and the size that it states of its image."""
    annotation = read_annotation(file)
    found = []
    for number, item in enumerate(annotation.findall("object"), 1):
        where = f"{file}: object {number}"
        label = tag_indices(((item.findtext("name") or "").strip(),), classes, where, fault)
        bounds = item.find("bndbox")
        if bounds is None:
            fault(f"{where} has no <bndbox>")
        elif label:
            with passing_on(fault):
                x0, y0, x1, y1 = (number_in(bounds, name, where) for name in ("xmin", "ymin", "xmax", "ymax"))
                found.append(Box(label[0], x0, y0, x1, y1, where))
    if are_shares([edge for box in found for edge in box[1:5]]):
        raise DatasetError(no_pixels(file))
    return found, size_in(annotation, file)


def _voc_edges(box: Box) -> Box:
    """Edges from VOC's corners, which both belong to the box; where they coincide it is a mistake, not one pixel."""
    right, bottom = box.right - (box.right <= box.left), box.bottom - (box.bottom <= box.top)
    return box._replace(left=box.left - 1, top=box.top - 1, right=right, bottom=bottom)


def _no_change(box: Box) -> Box:
    return box


def _coco_boxes(path: Path, wanted: Container[str], classes: Sequence[str], fault: Fault) -> FoundBoxes:
    content = parse_json(path)
    names, frames = _image_names(path, content, fault)
    found: dict[str, list[Box]] = {name: [] for name in names.values() if name in wanted}
    labels: dict[int, tuple[int, ...]] = {}
    class_name = _category_names(path, content, fault)
    strays: dict[str, str] = {}
    numbers: list[float] = []
    for item in entries(path, content, "annotations", {"image_id": int, "category_id": int, "bbox": list}, fault):
        where = f"{path}: annotation {item.get('id', '?')} of image {item['image_id']}"
        number, name, sound = item["category_id"], names.get(item["image_id"]), _is_quadruple(item["bbox"])
        numbers += item["bbox"] if sound else ()
        if name is None:
            fault(f"{path}: an annotation has image_id {item['image_id']}, which no image has")
        elif name not in wanted:
            strays.setdefault(name, where)
        elif number not in class_name:
            fault(f"{where} has category_id {number}, which no category has")
        elif not sound:
            fault(f"{where}: bbox {item['bbox']!r:.60}; wanted four numbers: left, top, width, height")
        else:
            if number not in labels:
                labels[number] = tag_indices((class_name[number],), classes, where, fault)
            if labels[number] and not item.get("iscrowd"):
                left, top, width, height = item["bbox"]
                found[name].append(Box(labels[number][0], left, top, left + width, top + height, where))
    if are_shares(numbers):
        fault(no_pixels(path))
        return FoundBoxes({}, {}, {})
    return FoundBoxes({name: tuple(boxes) for name, boxes in found.items() if boxes}, frames, strays)


def _image_names(
    path: Path, content: Mapping[str, Any], fault: Fault
) -> tuple[dict[int, str], dict[str, tuple[int, int]]]:
    """The record ids of COCO's images by their numbers, of two that share either the first; sizes by id, if stated."""
    names: dict[int, str] = {}
    frames: dict[str, tuple[int, int]] = {}
    taken: set[str] = set()
    for item in entries(path, content, "images", {"id": int, "file_name": str}, fault):
        name = record_id(item["file_name"])
        if item["id"] in names or name in taken:
            fault(f"{path}: image {item['id']} ({item['file_name']}) stands twice; remove one of them")
        else:
            names[item["id"]] = name
            taken.add(name)
            if size := stated_size(item.get("height"), item.get("width")):
                frames[name] = size
    return names, frames


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
