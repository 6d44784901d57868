"""COCO's JSON: run lengths, or polygons (``coco-polygons``), with integer ids, read by pycocotools and torchvision.

One annotation an image and class, as COCO's stuff annotations are, or one a connected region. Background and unlabelled
pixels (255) have none. Run lengths hold every mask exactly. So do the polygons, which go along the edges of pixels: one
a connected piece, holes joined to its outline by a cut of no width. pycocotools draws exactly these pixels again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.faults import stop
from pseudolabel.data.instances import Shape, read_shape, run_lengths
from pseudolabel.data.json_files import entries, parse_json
from pseudolabel.errors import DatasetError
from pseudolabel.interop.incoming import Correction, Parent, draw_shapes
from pseudolabel.interop.outgoing import Export, Outgoing, read_regions
from pseudolabel.interop.outlines import pixel_outlines


def write(path: Path, export: Export, *, polygons: bool = False) -> None:
    """Write the JSON row by row, so that memory does not grow with the number of images.

    Args:
        path: The file.
        export: The masks. Annotations are numbered from 1, images and categories as the data set numbers them.
        polygons: Polygons in place of run lengths.
    """
    images = (
        {
            "id": image.number,
            "file_name": image.file_name,
            "height": image.size[0],
            "width": image.size[1],
        }
        for image in export.images
    )
    categories = [{"id": export.categories[label], "name": name} for label, name in enumerate(export.classes) if label]
    with writing(path), replacing(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as file:
        for begin, name, items in (
            ("{", "categories", categories),
            (",", "images", images),
            (",", "annotations", _annotations(export, polygons=polygons)),
        ):
            file.write(f'{begin}\n"{name}": [')
            _write_rows(file, items)
            file.write("\n]")
        file.write("\n}\n")


def annotate(image: Outgoing, *, instances: bool, polygons: bool) -> list[dict[str, Any]]:
    """The annotations of one mask; runs in a worker process.

    Returns:
        ``category_id`` (still the class index), ``segmentation``, ``area`` in pixels, ``bbox`` as x, y, width, height,
        ``iscrowd`` 0.
    """
    from pycocotools import mask as coco_mask

    found = []
    for label, inside in read_regions(image, instances=instances):
        runs = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        packed: Any = {"size": list(inside.shape), "counts": runs["counts"].decode("ascii")}
        found.append(
            {
                "category_id": label,
                "segmentation": [ring.ravel().tolist() for ring in pixel_outlines(inside)] if polygons else packed,
                "area": int(coco_mask.area(runs)),
                "bbox": coco_mask.toBbox(runs).tolist(),
                "iscrowd": 0,
            }
        )
    return found


def read(path: Path, parent: Parent) -> Iterator[Correction]:
    """The corrections in a COCO file: every image that it lists, those without an annotation as background.

    Args:
        path: The JSON file.
        parent: The masks that were corrected.

    Raises:
        DatasetError: The file is not what it should be, or of other images, sizes or classes.
    """
    content = parse_json(path)
    names = {item["id"]: item["name"] for item in entries(path, content, "categories", {"id": int, "name": str}, stop)}
    shapes: dict[int, list[tuple[int, Shape]]] = {}
    sizes: dict[int, tuple[str, tuple[int, int]]] = {}
    for item in entries(path, content, "images", {"id": int, "file_name": str}, stop):
        image = parent.find(item["file_name"], path)
        parent.require_size(image, (item.get("height"), item.get("width")), path)
        sizes[item["id"]] = image, parent.sizes[image]
    for item in entries(path, content, "annotations", {"image_id": int, "category_id": int}, stop):
        where = f"{path}: annotation {item.get('id', '?')}"
        if item["image_id"] not in sizes:
            raise DatasetError(f"{where} has image_id {item['image_id']}, which no image has")
        if item["category_id"] not in names:
            raise DatasetError(f"{where} has category_id {item['category_id']}, which no category has")
        label = 255 if item.get("iscrowd") else parent.label(names[item["category_id"]], path)
        shape = read_shape(item.get("segmentation"), sizes[item["image_id"]][1], where)
        if shape is None:
            raise DatasetError(f"{where} has no shape that can be drawn, such as a box alone; draw it, or remove it")
        shapes.setdefault(item["image_id"], []).append((label, shape))
    for number, (image, size) in sizes.items():
        yield Correction(image, _drawing(shapes.get(number, []), size, f"{path}: {image}"))


def _drawing(shapes: list[tuple[int, Shape]], size: tuple[int, int], where: str) -> Callable[[], np.ndarray]:
    return partial(_draw, shapes, size, where)


def _draw(shapes: list[tuple[int, Shape]], size: tuple[int, int], where: str) -> np.ndarray:
    try:
        return draw_shapes(((label, run_lengths(shape, *size)) for label, shape in shapes), size)
    except ValueError as error:
        raise DatasetError(f"{where}: the run lengths of an annotation are broken ({error}); export it anew") from error


def _annotations(export: Export, *, polygons: bool) -> Iterator[dict[str, Any]]:
    count = 0
    for image, found in export.each(partial(annotate, instances=export.instances, polygons=polygons)):
        for row in found:
            count += 1
            numbers = {"id": count, "image_id": image.number, "category_id": export.categories[row["category_id"]]}
            yield {**row, **numbers}


def _write_rows(file: TextIO, items: Iterable[Mapping[str, Any]]) -> None:
    comma = ""
    for item in items:
        file.write(f"{comma}\n{json.dumps(item, ensure_ascii=False)}")
        comma = ","
