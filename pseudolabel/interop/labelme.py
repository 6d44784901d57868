"""LabelMe's JSON, one file an image beside a copy of its photograph: polygons that people can drag.

A polygon goes through the centres of the boundary pixels of a connected region, holes joined by a seam. Read back,
polygons, rectangles and LabelMe's own masks are drawn.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.json_files import parse_json
from pseudolabel.data.lists import files_below
from pseudolabel.errors import DatasetError
from pseudolabel.interop.contours import centre_polygons, draw_polygon
from pseudolabel.interop.extra import require
from pseudolabel.interop.incoming import Correction, Parent, as_runs, draw_shapes
from pseudolabel.interop.outgoing import Export, Outgoing, copy_photograph, read_regions

_WANTED = "LabelMe's object with shapes"
_FAR = 1e5  # pixels


def check(classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse to begin without the package that writes the format.

    Raises:
        MissingExtraError: It is not installed.
    """
    require("supervision.dataset.utils", "supervision", "--as labelme")


def write(folder: Path, export: Export) -> None:
    """Write photographs and JSON files; ``labelme FOLDER`` opens them.

    Args:
        folder: To be made.
        export: The masks. Regions of one class are one group, unless ``instances``.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for _ in export.each(partial(place_files, folder=folder, classes=export.classes, instances=export.instances)):
            pass
        with replacing(folder / "labels.txt") as file:
            file.write("".join(f"{name}\n" for name in export.classes[1:]).encode())


def place_files(image: Outgoing, *, folder: Path, classes: tuple[str, ...], instances: bool) -> None:
    """Copy one photograph and write its JSON; runs in a worker process."""
    copy_photograph(image, folder / image.file_name)
    shapes = [
        {
            "label": classes[label],
            "points": points.astype(float).tolist(),
            "group_id": None if instances else label,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for label, inside in read_regions(image, instances=False)
        for points in centre_polygons(inside, "--as labelme")
    ]
    content: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(image.file_name).name,
        "imageData": None,
        "imageHeight": image.size[0],
        "imageWidth": image.size[1],
    }
    with replacing(folder / f"{image.id}.json") as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())


def read(path: Path, parent: Parent) -> Iterator[Correction]:
    """The JSON files below a folder.

    Args:
        path: The folder.
        parent: The masks that were corrected.

    Raises:
        DatasetError: A file is not what it should be, or of other images, sizes or classes.
    """
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder; pass the folder of LabelMe's JSON files")
    for name, file in files_below(path, (".json",)):
        content = parse_json(file, _WANTED)
        shapes = content.get("shapes")
        if not isinstance(shapes, list) or not all(isinstance(shape, Mapping) for shape in shapes):
            raise DatasetError(f"{file} lacks a list of shapes; wanted {_WANTED}")
        image = parent.find(f"{name}.json", file)
        parent.require_size(image, (content.get("imageHeight"), content.get("imageWidth")), file)
        labels = [parent.label(str(shape.get("label")), file) for shape in shapes]
        yield Correction(image, partial(_draw, file, list(zip(labels, shapes, strict=True)), parent.sizes[image]))


def _draw(file: Path, shapes: list[tuple[int, Mapping[str, Any]]], size: tuple[int, int]) -> np.ndarray:
    drawn = (
        (label, as_runs(_region(shape, size, f"{file}: shape {number}")))
        for number, (label, shape) in enumerate(shapes, 1)
    )
    return draw_shapes(drawn, size)


def _region(shape: Mapping[str, Any], size: tuple[int, int], where: str) -> np.ndarray:
    """The pixels of one shape: bool (H, W)."""
    kind = shape.get("shape_type") or "polygon"
    try:
        points = np.asarray(shape.get("points"), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.zeros((0, 2))
    wanted = {"polygon": 3, "rectangle": 2, "mask": 2}
    if kind not in wanted:
        raise DatasetError(f"{where} is a {kind!s:.20}, which has no pixels; draw a polygon, a rectangle or a mask")
    if len(points) < wanted[kind] or not np.isfinite(points).all() or np.abs(points).max() > _FAR:
        raise DatasetError(f"{where} has no list of points; draw it anew")
    if kind == "polygon":
        return draw_polygon(points, size)
    (left, top), (right, bottom) = points[:2].min(axis=0), points[:2].max(axis=0)
    if kind == "rectangle":
        return draw_polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), size)
    return _pasted(shape.get("mask"), round(left), round(top), size, where)


def _pasted(mask: Any, left: int, top: int, size: tuple[int, int], where: str) -> np.ndarray:
    """LabelMe's mask, a PNG of the box around it in base64."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(mask, validate=True)), formats=("PNG",)) as picture:
            found = np.asarray(picture.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where} has a mask that cannot be read as a PNG; draw it anew") from error
    drawn = np.zeros(size, dtype=bool)
    if left < 0 or top < 0 or top + found.shape[0] > size[0] or left + found.shape[1] > size[1]:
        raise DatasetError(f"{where} has a mask that leaves its image; draw it anew")
    drawn[top : top + found.shape[0], left : left + found.shape[1]] = found
    return drawn
