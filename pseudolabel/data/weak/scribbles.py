"""Scribbles, one file an image: a PNG of class indices, or ScribbleSup's XML of polylines (Lin et al. 2016).

In a PNG, 0 is a background scribble and 255 is unlabelled. The XML holds, below ``<annotation>``, one ``<polygon>`` a
stroke: the class name in ``<tag>``, then its corners as ``<point><X>..</X><Y>..</Y></point>``, pixels from 0. Strokes
are open, whatever their element is called.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pseudolabel.data.faults import Fault, passing_on
from pseudolabel.data.frames import are_shares, no_pixels, size_in
from pseudolabel.data.images import read_label_png
from pseudolabel.data.lists import files_below
from pseudolabel.data.shapes import Point, Polyline
from pseudolabel.data.tags import label_of
from pseudolabel.data.xml_files import number_in, read_annotation
from pseudolabel.errors import DatasetError

UNLABELLED = 255


def find_scribbles(path: Path, wanted: Container[str], fault: Fault) -> tuple[dict[str, Path], dict[str, str]]:
    """The scribble files in a folder.

    Args:
        path: The folder.
        wanted: The ids to keep.
        fault: Told of two files for one image.

    Returns:
        Files by image id; and of ids that are not wanted, the file that has each.

    Raises:
        DatasetError: It is none, or holds no such file.
    """
    if not path.is_dir():
        raise DatasetError(f"--scribbles {path} is a file; wanted the folder that holds ID.png or ID.xml")
    found: dict[str, Path] = {}
    strays: dict[str, str] = {}
    for name, file in files_below(path, (".png", ".xml")):
        if name not in wanted:
            strays.setdefault(name, str(file))
        elif name in found:
            fault(f"{file} and {found[name].name} are scribbles of the same image; keep one of them")
        else:
            found[name] = file
    if not found and not strays:
        raise DatasetError(f"{path} holds no .png or .xml file; wanted scribbles as ID.png or ID.xml")
    return found, strays


def read_strokes(
    path: Path, classes: Sequence[str], fault: Fault
) -> tuple[tuple[Polyline, ...], tuple[int, int] | None]:
    """The strokes of ScribbleSup's XML.

    Args:
        path: The file.
        classes: Class names, background first, which may have strokes too.
        fault: Told of every faulty stroke, which is left out.

    Returns:
        The strokes, and the image's height and width where ``<size>`` states them; 0 does not.

    Raises:
        DatasetError: The file is missing, no annotation, holds no stroke, or none whose coordinates are pixels.
    """
    annotation = read_annotation(path)
    strokes = [] if annotation is None else annotation.findall("polygon")
    if not strokes:
        raise DatasetError(f"{path} holds no stroke; wanted <polygon> with <tag> and <point>, as ScribbleSup has it")
    found = []
    for number, stroke in enumerate(strokes, 1):
        where = f"{path}: polygon {number}"
        label = label_of((stroke.findtext("tag") or "").strip(), classes, where, fault)
        with passing_on(fault):
            corners = tuple(_corners(stroke, where))
            if not corners:
                fault(f"{where} has no <point>")
            elif label is not None:
                found.append(Polyline(label, corners, where))
    if are_shares([value for stroke in found for corner in stroke.corners for value in corner]):
        raise DatasetError(no_pixels(path))
    return tuple(found), size_in(annotation, path)


def read_scribble_png(path: Path, classes: Sequence[str]) -> np.ndarray:
    """A scribble PNG.

    Returns:
        uint8 (H, W): class indices, 255 where unlabelled.

    Raises:
        DatasetError: It is unreadable, labels no pixel or all of them, or holds a value that is no class.
    """
    labels = read_label_png(path)
    present = np.bincount(labels.ravel(), minlength=256).nonzero()[0]
    wrong = [int(label) for label in present if len(classes) <= label < UNLABELLED]
    if wrong and len(classes) == 1:
        raise DatasetError(
            f"{path} holds label {wrong[0]}, but the data set names no class; "
            "write a classes.txt in its folder: one name a line, in the order of the labels from 1"
        )
    if wrong:
        raise DatasetError(f"{path} holds label {wrong[0]}; wanted 0 to {len(classes) - 1}, or 255 for unlabelled")
    if present.tolist() == [UNLABELLED]:
        raise DatasetError(f"{path} labels no pixel: every value is 255; draw a scribble or remove it")
    if UNLABELLED not in present:
        raise DatasetError(
            f"{path} labels every pixel, with {int(np.bincount(labels.ravel()).argmax())} most of them; unlabelled "
            "pixels must be 255; pixel masks are no scribbles, train-scribble takes them by --mask-list"
        )
    return labels


def draw_strokes(labels: np.ndarray, strokes: Sequence[Polyline], width: int) -> None:
    """Draw strokes with round ends into a label map uint8 (H, W), later ones over earlier ones.

    What lies on the image's far border, which belongs to it, is drawn on the last pixels.
    """
    picture = Image.fromarray(labels)
    draw = ImageDraw.Draw(picture)
    right, bottom = picture.width - 1, picture.height - 1
    for stroke in strokes:
        corners = [(min(x, right), min(y, bottom)) for x, y in stroke.corners]
        draw.line(corners, fill=stroke.label, width=width, joint="curve")
        for x, y in (corners[0], corners[-1]):
            _disc(draw, x, y, width, stroke.label)
    labels[:] = np.asarray(picture)


def draw_points(labels: np.ndarray, points: Sequence[Point], width: int) -> None:
    """Draw points as discs of this diameter into a label map uint8 (H, W); no disc covers another one's centre."""
    picture = Image.fromarray(labels)
    draw = ImageDraw.Draw(picture)
    for point in points:
        _disc(draw, point.x, point.y, width, point.label)
    labels[:] = np.asarray(picture)
    for point in points:
        labels[point.y, point.x] = point.label


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, width: int, label: int) -> None:
    radius = (width - 1) / 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=label)


def _corners(stroke: Any, where: str) -> list[tuple[float, float]]:
    return [(number_in(point, "X", where), number_in(point, "Y", where)) for point in stroke.findall("point")]
