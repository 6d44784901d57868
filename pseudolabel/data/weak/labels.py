"""Weak labels of a data set: scribbles, points and boxes beside the tags, in any mixture, image by image.

Points and boxes are a few numbers and stand in the records; scribbles are files, read when they are asked for, as masks
are. All of them imply tags. Where tags are given, they may not contradict them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from pseudolabel.data.faults import Fault, passing_on, stop
from pseudolabel.data.frames import other_frame
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.images import image_size
from pseudolabel.data.lists import read_ids
from pseudolabel.data.names import file_named
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.shapes import Box, Point, Polyline
from pseudolabel.data.weak.boxes import FoundBoxes, check_boxes, read_boxes
from pseudolabel.data.weak.manifest import read_manifest
from pseudolabel.data.weak.points import read_points
from pseudolabel.data.weak.scribbles import (
    UNLABELLED,
    draw_points,
    draw_strokes,
    find_scribbles,
    read_scribble_png,
    read_strokes,
)
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import absolute, stands, what_stands
from pseudolabel.runtime.formatting import counted

Mark = TypeVar("Mark", Point, Box)


@dataclass(frozen=True)
class WeakLabels:
    """What the weak labels of one image say.

    Attributes:
        labels: uint8 (H, W): the class index, 0 for background, where a scribble or a point says one; else 255.
        points: The points, which ``labels`` holds too.
        boxes: Object boxes, edges int and inside the image.
    """

    labels: np.ndarray
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()


def has_weak_labels(record: Record) -> bool:
    """Whether an image has scribbles, points or boxes."""
    return record.scribbles is not None or bool(record.points) or bool(record.boxes)


def load_weak_labels(
    record: Record, size: tuple[int, int], classes: Sequence[str], *, width: int = 3, fault: Fault = stop
) -> WeakLabels:
    """Read and check the weak labels of one image.

    Args:
        record: The image.
        size: Its height and width, pixels.
        classes: Class names, background first.
        width: Diameter, in pixels, with which polylines and points are drawn. Scribbles of PNG files stay as they are.
        fault: Told of every fault, one line that names file and entry; what it concerns is left out.

    Returns:
        Its scribbles and points as one label map, and its boxes; all 255 and none where it has none.

    Raises:
        DatasetError: There is a fault, as long as ``fault`` is the default.
    """
    labels = np.full(size, UNLABELLED, dtype=np.uint8)
    if record.scribbles is not None:
        with passing_on(fault):
            labels = _scribble_map(record, record.scribbles, size, classes, width, fault)
    points = [_off_border(point, size) for point in record.points]
    points = _single([point for point in points if _lies_inside(point, labels, size, classes, fault)], classes, fault)
    draw_points(labels, points, width)
    return WeakLabels(labels, tuple(points), check_boxes(record, size, fault))


def check_size(record: Record) -> None:
    """Refuse a scribble PNG, or boxes, of another size than their image, from the headers of the files alone.

    Raises:
        DatasetError: It is, or one of them is unreadable.
    """
    if record.scribbles is not None and record.scribbles.suffix.lower() == ".png":
        _same_size(record.scribbles, image_size(record.scribbles), image_size(record.image), record.image)
    if record.boxes and record.frame is not None and record.frame != (size := image_size(record.image)):
        check_boxes(record, size, stop)


def listed_ids(path: Path, dataset: Dataset) -> frozenset[str]:
    """The images whose pixel masks ``--mask-list`` names.

    Raises:
        DatasetError: The list cannot be read, or names an image that is not in the split.
    """
    if not path.is_file():
        raise DatasetError(f"--mask-list {path} {what_stands(path)}; wanted a text file of image ids, one a line")
    wanted = read_ids(path)
    strange = sorted(set(wanted) - {record.id for record in dataset.records})
    if strange:
        raise DatasetError(
            f"{path} names {len(strange)} images that are not in split {dataset.split} of {dataset.root} "
            f"(first: {strange[0]!r}); remove them from the list"
        )
    return frozenset(wanted)


def attach(dataset: Dataset, places: Mapping[str, Path], fault: Fault) -> Dataset:
    """Give the records of a data set their weak labels, and tags to those that have none from elsewhere.

    Args:
        dataset: Without weak labels.
        places: ``scribbles``, ``points`` and ``boxes``, as far as there are any, to a folder or file.
        fault: Told of every faulty entry, which is left out.

    Raises:
        DatasetError: A folder or file is missing or not what it should be, or ``fault`` raised.
    """
    require_places(places)
    drawn = absolute(places["scribbles"]) if "scribbles" in places else None
    if drawn is not None and any(drawn.is_relative_to(folder.resolve()) for folder in dataset.mask_folders):
        raise DatasetError(
            f"--scribbles {places['scribbles']} is the data set's own folder of pixel masks; simulate scribbles "
            "from them with 'pseudolabel data scribbles', or let train-scribble take them as --supervision masks"
        )
    ids = {record.id for record in dataset.records}
    scribbles: Mapping[str, Path] = {}
    points: Mapping[str, tuple[Point, ...]] = {}
    boxes = FoundBoxes({}, {}, {})
    others: dict[str, Mapping[str, str]] = {}
    if "scribbles" in places:
        scribbles, others["scribbles"] = find_scribbles(places["scribbles"], ids, fault)
    if "points" in places:
        points, others["points"] = read_points(places["points"], ids, dataset.classes, fault)
    if "boxes" in places:
        boxes = read_boxes(places["boxes"], ids, dataset.classes, fault)
        others["boxes"] = boxes.strays
    strays, notes = _strays(dataset, places, others, {"scribbles": scribbles, "points": points, "boxes": boxes.boxes})
    records = []
    for record in dataset.records:
        given = replace(
            record,
            scribbles=scribbles.get(record.id),
            points=_allowed(record, points.get(record.id, ()), "point", dataset.classes, fault),
            boxes=_allowed(record, boxes.boxes.get(record.id, ()), "box", dataset.classes, fault),
            frame=boxes.frames.get(record.id),
        )
        if given.tags is None:
            given = replace(given, tags=implied_tags(given, dataset.classes, fault))
        records.append(given)
    untagged = all(record.tags is None for record in dataset.records)
    return replace(
        dataset,
        records=tuple(records),
        tag_source="weak" if untagged else dataset.tag_source,
        weak=dict(places),
        simulated={kind: found for kind, path in places.items() if (found := read_manifest(path, kind)) is not None},
        strays=strays,
        notes=(*dataset.notes, *notes, *boxes.notes, *_all_background(places, points)),
    )


def implied_tags(record: Record, classes: Sequence[str], fault: Fault = stop) -> tuple[int, ...] | None:
    """The classes of all weak labels of an image, ascending, background left out; None where it has no weak label."""
    present = {point.label for point in record.points} | {box.label for box in record.boxes}
    if record.scribbles is not None:
        with passing_on(fault):
            present |= {label for label, _ in _scribbled(record.scribbles, classes, fault)}
    return tuple(sorted(present - {0})) if present else None


def check_tags(record: Record, classes: Sequence[str], fault: Fault = stop) -> None:
    """Tell ``fault`` of every scribble whose class the tags exclude; points and boxes are checked as they are read."""
    if record.scribbles is not None:
        for label, where in _scribbled(record.scribbles, classes, fault):
            if _excluded(record, label):
                fault(f"{where}: a scribble {_contradiction(record, label, classes)}")


def _strays(
    dataset: Dataset,
    places: Mapping[str, Path],
    others: Mapping[str, Mapping[str, str]],
    found: Mapping[str, Collection[str]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to say of labels of images that are not in the list: published files often cover more images.

    What lies in the data set's own folder serves all of its lists: there only a label without a photograph is named.

    Args:
        dataset: The list.
        places: The folder or file of each kind.
        others: Of each kind, the ids that are not in the list, and the entry that has each.
        found: Of each kind, the ids that are.

    Returns:
        Complaints, where no label of a kind is of an image in the list; and notes, where some are.
    """
    strays, notes = [], []
    for kind, entries in others.items():
        known: set[str] = set()
        if absolute(places[kind]).is_relative_to(dataset.root):
            known = _photographs(dataset, entries)
        rest = [name for name in entries if name not in known]
        if not rest:
            continue
        first = f"(first: {rest[0]!r} in {entries[rest[0]]})"
        split = f"split {dataset.split} of {dataset.root}"
        if known or found[kind]:
            notes.append(
                f"{places[kind]}: the {kind} of {counted(len(rest), 'image')} that {split} lacks are not used {first}"
            )
        else:
            strays.append(
                f"{places[kind]}: none of its {kind} is of an image in {split} {first}; "
                "an id is the name in the list, without a file's ending"
            )
    return tuple(strays), tuple(notes)


def _all_background(places: Mapping[str, Path], points: Mapping[str, tuple[Point, ...]]) -> list[str]:
    """A note where classes may have been counted from 0, which is the background."""
    if not points or any(point.label for found in points.values() for point in found):
        return []
    return [f"{places['points']}: all points are of the background, for in JSON cls 0 is that; classes count from 1"]


def _photographs(dataset: Dataset, names: Collection[str]) -> set[str]:
    """Those names that have a photograph where the data set's own photographs lie."""
    folders = {record.image.parents[record.id.count("/")] for record in dataset.records}
    endings = {record.image.suffix for record in dataset.records} | set(SUFFIXES)
    return {
        name
        for name in names
        if any(stands(file_named(folder, name + ending)) for folder in folders for ending in endings)
    }


def _allowed(
    record: Record, marks: tuple[Mark, ...], what: str, classes: Sequence[str], fault: Fault
) -> tuple[Mark, ...]:
    """The marks whose class the tags do not exclude."""
    found = []
    for mark in marks:
        if _excluded(record, mark.label):
            fault(f"{mark.where}: a {what} {_contradiction(record, mark.label, classes)}")
        else:
            found.append(mark)
    return tuple(found)


def _excluded(record: Record, label: int) -> bool:
    return record.tags is not None and label not in (0, UNLABELLED, *record.tags)


def _contradiction(record: Record, label: int, classes: Sequence[str]) -> str:
    tags = ", ".join(classes[tag] for tag in record.tags or ()) or "no class at all"
    return f"of class {classes[label]!r}, but the tags of image {record.id!r} are {tags}; correct one of them"


def _scribbled(path: Path, classes: Sequence[str], fault: Fault) -> list[tuple[int, str]]:
    """The class index of each scribble in a file, and where it stands."""
    if path.suffix.lower() == ".xml":
        return [(stroke.label, stroke.where) for stroke in read_strokes(path, classes, fault)[0]]
    present = np.unique(read_scribble_png(path, classes)).tolist()
    return [(label, str(path)) for label in present if label != UNLABELLED]


def _scribble_map(
    record: Record, path: Path, size: tuple[int, int], classes: Sequence[str], width: int, fault: Fault
) -> np.ndarray:
    """An image's scribbles, uint8 (H, W), those that are at fault left out."""
    if path.suffix.lower() == ".xml":
        strokes, stated = read_strokes(path, classes, fault)
        _same_size(path, stated or size, size, record.image)
        labels = np.full(size, UNLABELLED, dtype=np.uint8)
        draw_strokes(labels, [stroke for stroke in strokes if _fits(stroke, record, size, classes, fault)], width)
        return labels
    labels = read_scribble_png(path, classes)
    _same_size(path, (labels.shape[0], labels.shape[1]), size, record.image)
    for label in np.unique(labels).tolist():
        if _excluded(record, label):
            fault(f"{path}: a scribble {_contradiction(record, label, classes)}")
            labels[labels == label] = UNLABELLED
    return labels


def _same_size(path: Path, found: tuple[int, int], wanted: tuple[int, int], photograph: Path) -> None:
    if found != wanted:
        raise DatasetError(other_frame(str(path), found, wanted, photograph, "draw the scribbles at the image's size"))


def _fits(stroke: Polyline, record: Record, size: tuple[int, int], classes: Sequence[str], fault: Fault) -> bool:
    """Whether a stroke lies in its image, whose border belongs to it, and is of a class that the tags allow."""
    height, width = size
    outside = [(x, y) for x, y in stroke.corners if not (0 <= x <= width and 0 <= y <= height)]
    if outside:
        fault(
            f"{stroke.where}: corner ({outside[0][0]:g}, {outside[0][1]:g}) lies outside its image, "
            f"which is {width} x {height} pixels"
        )
    elif _excluded(record, stroke.label):
        fault(f"{stroke.where}: a scribble {_contradiction(record, stroke.label, classes)}")
    else:
        return True
    return False


def _single(points: Sequence[Point], classes: Sequence[str], fault: Fault) -> list[Point]:
    """The points that lie on no earlier one of another class."""
    first: dict[tuple[int, int], Point] = {}
    found = []
    for point in points:
        other = first.setdefault((point.x, point.y), point)
        if other.label == point.label:
            found.append(point)
        else:
            fault(
                f"{point.where}: point ({point.x}, {point.y}) of class {classes[point.label]!r} "
                f"lies on one of class {classes[other.label]!r}; remove one of them"
            )
    return found


def _off_border(point: Point, size: tuple[int, int]) -> Point:
    """A point on the far border of its image, which belongs to it, on the last pixel."""
    if not point.between:
        return point
    return point._replace(x=point.x - (point.x == size[1]), y=point.y - (point.y == size[0]))


def _lies_inside(point: Point, labels: np.ndarray, size: tuple[int, int], classes: Sequence[str], fault: Fault) -> bool:
    """Whether a point lies in its image, and on no scribble of another class."""
    height, width = size
    if not (0 <= point.x < width and 0 <= point.y < height):
        fault(f"{point.where}: point ({point.x}, {point.y}) lies outside its image, which is {width} x {height} pixels")
        return False
    other = int(labels[point.y, point.x])
    if other not in (UNLABELLED, point.label):
        fault(
            f"{point.where}: point ({point.x}, {point.y}) of class {classes[point.label]!r} "
            f"lies on a scribble of class {classes[other]!r}"
        )
        return False
    return True


def require_places(places: Mapping[str, Path]) -> None:
    """Refuse weak labels that are not where they are said to be.

    Args:
        places: ``scribbles``, ``points`` and ``boxes``, as far as there are any, to a folder or file.

    Raises:
        DatasetError: One does not exist.
    """
    for kind, path in places.items():
        if not path.exists():
            raise DatasetError(f"--{kind} {path} does not exist; pass the folder or file with the {kind}")
