"""Label maps as run lengths in COCO's JSON: one annotation an image and class, as COCO's stuff annotations are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.records import IGNORE


def class_runs(labels: np.ndarray) -> list[dict[str, Any]]:
    """The classes of one label map, ascending; background and unlabelled pixels are none of them.

    Args:
        labels: uint8 (H, W), 255 = unlabelled.

    Returns:
        ``category_id`` (the class index), ``segmentation`` (``size`` and compressed ``counts``), ``area`` in pixels,
        ``bbox`` as x, y, width, height, ``iscrowd`` 0.
    """
    from pycocotools import mask as coco_mask

    found = []
    for label in np.unique(labels):
        if label in (0, IGNORE):
            continue
        runs = coco_mask.encode(np.asfortranarray(labels == label, dtype=np.uint8))
        found.append(
            {
                "category_id": int(label),
                "segmentation": {"size": list(labels.shape), "counts": runs["counts"].decode("ascii")},
                "area": int(coco_mask.area(runs)),
                "bbox": coco_mask.toBbox(runs).tolist(),
                "iscrowd": 0,
            }
        )
    return found


def write_coco(
    path: Path,
    images: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    categories: Iterable[Mapping[str, Any]],
) -> None:
    """Write COCO's JSON row by row, so that memory does not grow with the number of images.

    Args:
        path: The file.
        images: ``id``, ``file_name``, ``height``, ``width``.
        rows: Annotations with COCO's own ``id``, ``image_id`` and ``category_id``.
        categories: ``id``, ``name``.
    """
    with writing(path), replacing(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as file:
        for begin, name, items in (
            ("{", "categories", categories),
            (",", "images", images),
            (",", "annotations", rows),
        ):
            file.write(f'{begin}\n"{name}": [')
            _write_rows(file, items)
            file.write("\n]")
        file.write("\n}\n")


def _write_rows(file: TextIO, items: Iterable[Mapping[str, Any]]) -> None:
    comma = ""
    for item in items:
        file.write(f"{comma}\n{json.dumps(item, ensure_ascii=False)}")
        comma = ","
