"""What the folders among photographs mean: classes, splits, or one folder each of photographs and of label maps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

_PART = r"train|training|val|valid|validation|test|testing|trainval|dev|eval"
_SPLIT = re.compile(rf"({_PART})[_-]?\d*", re.IGNORECASE)
_LABEL = r"(annot(ation)?s?|labels?|masks?|gts?|gtfine|ground[_ ]?truth|seg|segmentation(s|(class|object)\w*)?)"
_PHOTOGRAPH = r"(images?|imgs?|photos?|pictures?|jpegimages|leftimg8bit|rgb)"
_LABELS = re.compile(rf"(({_PART})[_-]?)?{_LABEL}([_-]\w+)?", re.IGNORECASE)
_PHOTOGRAPHS = re.compile(rf"(({_PART})[_-]?)?{_PHOTOGRAPH}([_-]?({_PART}))?|({_PART})", re.IGNORECASE)
_ROLES = re.compile(rf"(({_PART})[_-]?)?({_LABEL}|{_PHOTOGRAPH})([_-]?({_PART}))?", re.IGNORECASE)
_ENDINGS = ("mask", "masks", "label", "labels", "gt", "seg", "segmentation", "annot", "annotation", "ids")
_SUFFIX = re.compile(r"(.+)[_.-](masks?|labels?|gt|seg(mentation)?|annot(ation)?|label(train)?ids)", re.IGNORECASE)
_INDEXED = ("P", "L", "1", "I", "I;16")  # Pillow's modes of label maps: no colours but a palette's


class Folders(NamedTuple):
    """What the folders among photographs mean.

    Attributes:
        splits: Those at the top, where they are splits.
        classes: Name of the folder that is an image's class, by id; images without one are left out.
        complaint: Why their meaning cannot be told, to end a fault with; None where it can.
        note: What is taken neither for a class nor for a split; None where there is nothing.
    """

    splits: tuple[str, ...]
    classes: dict[str, str]
    complaint: str | None
    note: str | None


def split_name(name: str) -> bool:
    """Whether a folder or list is called as splits are."""
    return bool(_SPLIT.fullmatch(name))


def read_folders(ids: Collection[str], listed: Collection[str]) -> Folders:
    """Tell classes from splits and from what is only a place.

    Args:
        ids: Of all images, with ``/`` between folders.
        listed: Classes that a list names, which are classes whatever they are called, unless every folder at the top is
            called as a split is and the list lacks one of them.
    """
    way_of = {name: name.rpartition("/")[0] for name in ids}
    ways = set(way_of.values())
    tops = {way.partition("/")[0] for way in ways if way}
    parts = {top for top in tops if _SPLIT.fullmatch(top)}
    if parts != tops or tops <= set(listed):  # a list with a class called train does not name a folder val
        parts = parts if not tops.intersection(listed) else set()
    splits = parts if parts == tops and "" not in ways else set()
    label_of = {way: way.split("/")[bool(splits) :][:1] for way in ways if way}
    classes = {name: label[0] for name, way in way_of.items() if (label := label_of.get(way))}
    found = set(classes.values())
    if found and not found.intersection(listed) and all(_ROLES.fullmatch(name) for name in found):
        note = f"folders {', '.join(sorted(found))} are not taken for classes; to make them some, name them in a list"
        return Folders(tuple(sorted(splits)), {}, None, note)
    inner = {second for way in ways if _SPLIT.fullmatch(second := way.partition("/")[2].partition("/")[0])}
    note = f"folders {' and '.join(sorted(inner))} inside those of the classes are not read as splits"
    complaint = None
    if not splits and len(parts) > 1:
        complaint = (
            f"folders {' and '.join(sorted(parts))} look like splits, but stand beside "
            f"{', '.join(sorted(tops - parts)[:3]) or 'images'}; put every image into one of them, or name all folders "
            "in classes.txt if they are classes"
        )
    if len(inner) < 2 or splits:
        lone = len(found) == 1 and len(classes) == len(ids) and not found.intersection(listed)
        note = f"folder {min(found)}, which holds every image, is taken for the only class" if lone else ""
    return Folders(tuple(sorted(splits)), classes, complaint, note or None)


def label_maps(images: Mapping[str, Path], listed: Collection[str]) -> list[str]:
    """Ids of the files that are label maps by their place or name, in order.

    Such are files of a folder of labels beside one of photographs or beside photographs of the same names, and indexed
    PNG files that are called as another image with ``_mask`` or the like behind it.

    Args:
        images: All files that could be photographs, by id.
        listed: Classes that a list names, whose folders hold photographs.
    """
    ways = {name.rpartition("/")[0] for name in images}
    beside = {place for way in ways for place, folder, _ in _folders(way) if _PHOTOGRAPHS.fullmatch(folder)}
    label_folders = {
        way: [found for found in _folders(way) if _LABELS.fullmatch(found[1]) and found[1] not in listed]
        for way in ways
    }
    found = []
    for name, path in images.items():
        way, _, last = name.rpartition("/")
        for place, _, rest in label_folders[way]:
            if place in beside or "/".join(part for part in (place, rest, last) if part) in images:
                found.append(name)
                break
        else:
            if last.lower().endswith(_ENDINGS) and _is_named(name, path, images):
                found.append(name)
    return found


def _folders(way: str) -> Iterator[tuple[str, str, str]]:
    """Every folder on a way: the path above it, its name, and the path below it."""
    folders = way.split("/") if way else []
    for depth, folder in enumerate(folders):
        yield "/".join(folders[:depth]), folder, "/".join(folders[depth + 1 :])


def _is_named(name: str, path: Path, images: Mapping[str, Path]) -> bool:
    found = _SUFFIX.fullmatch(name) if path.suffix.lower() == ".png" else None
    if found is None or found[1] not in images:
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.mode in _INDEXED
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # what is wrong with it is said where it is read
