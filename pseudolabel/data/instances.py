"""Ground truth drawn from COCO's instance annotations: polygons, or run lengths.

Crowd regions are 255, and over them lie the instances from the largest to the smallest, so that small ones stay
visible.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.data.records import Record
from pseudolabel.errors import DatasetError

_FAR = 1e5  # a coordinate beyond it is a mistake, and would take pycocotools for ever to draw

Shape = tuple[bytes, ...] | dict[str, Any]
"""Polygons, each as the bytes of float64 x, y, x, y ...; or COCO's run lengths. Small, and quick to pickle."""


class Instance(NamedTuple):
    """One annotation: its class index, whether it stands for a crowd, and its shape."""

    label: int
    crowd: bool
    shape: Shape


@dataclass(frozen=True)
class InstanceMasks:
    """Ground truth by record, drawn when asked for; can be sent to worker processes.

    Attributes:
        category_ids: COCO's own number of each class, from class index 1 on.
        image_ids: COCO's own number of each image, by record id.
        sizes: Height and width of each image, by record id.
        instances: Annotations of each image, by record id.
    """

    category_ids: tuple[int, ...]
    image_ids: Mapping[str, int]
    sizes: Mapping[str, tuple[int, int]]
    instances: Mapping[str, tuple[Instance, ...]]

    def __call__(self, record: Record) -> np.ndarray:
        """Draw one image's ground truth.

        Returns:
            uint8 (H, W): 0 background, class indices, 255 where there are crowds.

        Raises:
            DatasetError: The record is not of this data set, or its run lengths do not fill the image.
        """
        return self.draw(record)[0]

    def draw(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """One image's ground truth, and which annotation each of its pixels shows.

        Returns:
            uint8 (H, W), as of a call; int32 (H, W), the annotations' numbers from 1, 0 where there are none.

        Raises:
            DatasetError: As a call.
        """
        if record.id not in self.sizes:
            raise DatasetError(f"{record.image} has no annotations in this split, and so no ground truth")
        from pycocotools import mask as coco_mask

        height, width = self.sizes[record.id]
        labels, numbers = np.zeros((height, width), dtype=np.uint8), np.zeros((height, width), dtype=np.int32)
        try:
            runs = [(item, _run_lengths(item.shape, height, width)) for item in self.instances[record.id]]
            runs.sort(key=lambda pair: (not pair[0].crowd, -int(coco_mask.area(pair[1]))))
            for number, (item, run) in enumerate(runs, 1):
                inside = coco_mask.decode(run).astype(bool)
                labels[inside] = 255 if item.crowd else item.label
                numbers[inside] = number
        except ValueError as error:
            raise DatasetError(f"{record.image}: the run lengths of an annotation are broken ({error})") from error
        return labels, numbers

    def merged(self, other: InstanceMasks) -> InstanceMasks:
        """The ground truth of both, which have the same categories."""
        return InstanceMasks(
            self.category_ids,
            {**self.image_ids, **other.image_ids},
            {**self.sizes, **other.sizes},
            {**self.instances, **other.instances},
        )


def read_shape(segmentation: Any, size: tuple[int, int], where: str) -> Shape:
    """Check one annotation's ``segmentation`` and make it compact.

    Args:
        segmentation: What the JSON holds: polygons, or an object with ``size`` and ``counts``.
        size: Height and width of its image.
        where: File and annotation, to begin an error with.

    Returns:
        The shape; polygons of fewer than three points, which have no area, are left out.

    Raises:
        DatasetError: It is neither, or run lengths are of another size.
    """
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if segmentation.get("size") != list(size):
            raise DatasetError(f"{where}: run lengths of size {segmentation.get('size')}; wanted {list(size)}")
        if isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts):
            if sum(counts) == size[0] * size[1]:
                return {"size": list(size), "counts": counts}
        elif isinstance(counts, str):
            return {"size": list(size), "counts": counts.encode()}
        raise DatasetError(f"{where}: its run lengths do not fill the image")
    try:
        rings = [array("d", ring) for ring in segmentation]
    except TypeError as error:
        raise DatasetError(f"{where}: its segmentation is no list of polygons [x, y, x, y, ...]") from error
    for ring in rings:
        if len(ring) % 2 or max(ring, default=0) > _FAR or min(ring, default=0) < -_FAR:
            raise DatasetError(f"{where}: a polygon has a coordinate too many, or one that lies in no image")
    return tuple(ring.tobytes() for ring in rings if len(ring) >= 6)


def _run_lengths(shape: Shape, height: int, width: int) -> dict[str, Any]:
    """A shape as pycocotools' compressed run lengths."""
    from pycocotools import mask as coco_mask

    packed: dict[str, Any]
    if isinstance(shape, tuple):
        polygons = [np.frombuffer(ring) for ring in shape]
        packed = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    elif isinstance(shape["counts"], bytes):
        packed = shape
    else:
        packed = coco_mask.frPyObjects(shape, height, width)
    return packed
