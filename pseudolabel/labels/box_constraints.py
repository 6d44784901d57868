"""Box constraints: in an image that has boxes, a class that has any is nowhere outside of them. [def]

A tagged class without a box may be anywhere, and so may every tagged class of an image without boxes. In training
``scribble.boxes`` does the same, on tensors; this module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import Header
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.faults import stop
from pseudolabel.data.shapes import cells
from pseudolabel.data.weak.boxes import check_boxes
from pseudolabel.data.weak.labels import require_places
from pseudolabel.errors import InputError
from pseudolabel.runtime.formatting import counted

BOX_CONSTRAINED = "held_to"
"""Under which name a protocol states that labels were box-constrained."""


def open_boxed(spec: Mapping[str, Any], boxes: Path | None, *, split: str, root: Path | None) -> Dataset:
    """The images of a stage that may box-constrain its maps.

    Args:
        spec: Of the data set, as its checkpoint has it.
        boxes: Folder or file to use instead of the spec's.
        split: As of ``load_dataset``.
        root: As of ``load_dataset``.

    Raises:
        DatasetError: As of ``reopen_dataset``, or there is nothing at ``boxes``.
    """
    if boxes is None:
        return reopen_dataset(spec, split=split, root=root)
    require_places({"boxes": boxes})
    return reopen_dataset(spec, split=split, root=root, boxes=boxes)


def stated(dataset: Dataset) -> dict[str, str]:
    """What a protocol states of labels that were constrained by the boxes of these images.

    Raises:
        InputError: None of them has a box.
    """
    count = sum(bool(record.boxes) for record in dataset.records)
    if not count:
        raise InputError(
            f"--tags boxes: no image of split {dataset.split} of {dataset.root} has a box; "
            "pass --boxes with the folder of VOC annotations or COCO's JSON that has them, or --tags dataset"
        )
    return {BOX_CONSTRAINED: f"boxes of {counted(count, 'image')}"}


def require_boxes(header: Header, records: Sequence[Record], dataset: Dataset, path: Path) -> None:
    """Refuse maps that were box-constrained where the boxes are gone.

    Args:
        header: Of the maps.
        records: Of their images.
        dataset: That these come from.
        path: Of the maps, for the message.

    Raises:
        InputError: No image has a box.
    """
    if BOX_CONSTRAINED in header.protocol and not any(record.boxes for record in records):
        raise InputError(
            f"{path} is box-constrained, but no image of split {dataset.split} of {dataset.root} has any"
            f"{dataset.gone_note}; put them back where they were"
        )


def allowed(record: Record, size: tuple[int, int], grid: tuple[int, int] | None = None) -> dict[int, np.ndarray]:
    """Where each class that has boxes may be.

    Args:
        record: The image.
        size: Its height and width, pixels.
        grid: Rows and columns of the maps to constrain; a cell that a box touches is inside. None: those of ``size``.

    Returns:
        Class index to bool (h, w); none where the image has no boxes.

    Raises:
        DatasetError: A box has no extent, goes beyond its image, or was drawn on one of another size.
    """
    height, width = grid or size
    found: dict[int, np.ndarray] = {}
    for box in check_boxes(record, size, stop):
        where = found.setdefault(box.label, np.zeros((height, width), dtype=bool))
        where[cells(box, height / size[0], width / size[1])] = True
    return found


def constrain_cams(maps: Mapping[int, np.ndarray], record: Record, size: tuple[int, int]) -> dict[int, np.ndarray]:
    """CAMs that are zero outside of their classes' boxes, over their largest value inside. [ours: the scaling]

    Args:
        maps: Class index to float (h, w) in [0, 1].
        record: The image.
        size: Its height and width, pixels.
    """
    found = dict(maps)
    grid = next(iter(maps.values())).shape if maps else size
    for label, where in allowed(record, size, (grid[0], grid[1])).items():
        if label in found:
            inside = found[label] * where
            found[label] = inside / (inside.max() or 1)
    return found


def constrain_probabilities(labels: np.ndarray, shares: np.ndarray, record: Record) -> np.ndarray:
    """Probabilities without those outside of their classes' boxes, the others in their proportions.

    Args:
        labels: int (P,), the class index of each map, background first.
        shares: float (P, H, W), at the size of the image.
        record: The image.

    Returns:
        float32 (P, H, W), summing to 1; background alone where nothing else is left.
    """
    held = np.array(shares, dtype=np.float32)
    for label, where in allowed(record, (shares.shape[1], shares.shape[2])).items():
        held[labels == label] *= where
    total = held.sum(axis=0)
    held[0, total <= 0] = 1
    return np.asarray(held / np.where(total > 0, total, 1), dtype=np.float32)
