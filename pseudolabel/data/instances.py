"""Ground truth drawn from COCO's instance annotations: polygons, or run lengths.

Crowd regions are 255, and over them lie the instances from the largest to the smallest, so that small ones stay
visible. Of an annotation without a shape that can be drawn, the box is 255, whatever else lies there: it holds an
object, and nobody knows which of its pixels are the object's.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.data.frames import are_shares, other_frame
from pseudolabel.data.images import image_size
from pseudolabel.data.records import IGNORE, Record
from pseudolabel.errors import DatasetError

_FAR = 1e5  # a coordinate beyond it is a mistake, and would take pycocotools for ever to draw

Shape = tuple[bytes, ...] | dict[str, Any]
"""Polygons, each as the bytes of float64 x, y, x, y ...; or COCO's run lengths. Small, and quick to pickle."""


class Instance(NamedTuple):
    """One annotation.

    Attributes:
        label: Its class index.
        crowd: Whether it stands for a crowd.
        shape: None where it has none that can be drawn.
        box: Without a shape: the left, top, right and bottom edge of its box in whole pixels, if it has one.
        where: Without a shape: the file and annotation.
    """

    label: int
    crowd: bool
    shape: Shape | None
    box: tuple[int, int, int, int] | None = None
    where: str = ""


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
            uint8 (H, W): 0 background, class indices, 255 where there are crowds or boxes of objects without a shape.

        Raises:
            DatasetError: The record is not of this data set, its photograph is of another size than the annotations
                state, its run lengths do not fill the image, or an object has neither shape nor box.
        """
        return self.draw(record)[0]

    def known(self, record: Record) -> bool:
        """Whether all annotations of an image have a shape or a box, so that there is ground truth of it."""
        return all(item.shape is not None or item.box is not None for item in self.instances.get(record.id, ()))

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

        height, width = self._size(record)
        labels, numbers = np.zeros((height, width), dtype=np.uint8), np.zeros((height, width), dtype=np.int32)
        items = self.instances[record.id]
        try:
            runs = [(item, run_lengths(item.shape, height, width)) for item in items if item.shape is not None]
            runs.sort(key=lambda pair: (not pair[0].crowd, -int(coco_mask.area(pair[1]))))
            for number, (item, run) in enumerate(runs, 1):
                inside = coco_mask.decode(run).astype(bool)
                labels[inside] = IGNORE if item.crowd else item.label
                numbers[inside] = number
        except ValueError as error:
            raise DatasetError(f"{record.image}: the run lengths of an annotation are broken ({error})") from error
        for item in items:
            if item.shape is not None:
                continue
            if item.box is None:
                raise DatasetError(
                    f"{item.where} has neither a shape that can be drawn nor a box, so that its image has no ground "
                    "truth; give it a polygon or a bbox, or leave the image out"
                )
            left, top, right, bottom = item.box
            labels[top:bottom, left:right], numbers[top:bottom, left:right] = IGNORE, 0
        return labels, numbers

    def _size(self, record: Record) -> tuple[int, int]:
        """Height and width of an image, once it is sure that its photograph has them, too."""
        size, found = self.sizes[record.id], image_size(record.image)
        if found != size:
            what = f"the ground truth of {record.image}"
            raise DatasetError(other_frame(what, size, found, record.image, "use the photographs that were annotated"))
        return size

    def merged(self, other: InstanceMasks) -> InstanceMasks:
        """The ground truth of both, which have the same categories."""
        return InstanceMasks(
            self.category_ids,
            {**self.image_ids, **other.image_ids},
            {**self.sizes, **other.sizes},
            {**self.instances, **other.instances},
        )


def shapeless_note(masks: InstanceMasks, records: Sequence[Record]) -> str | None:
    """One line that counts the annotations of some images that have no shape; None where there are none."""
    found = [item for record in records for item in masks.instances.get(record.id, ()) if item.shape is None]
    if not found:
        return None
    bare = sum(item.box is None for item in found)
    without = f"; without a box either: {bare}, and of their images there is no ground truth" if bare else ""
    return (
        f"annotations without a shape that can be drawn: {len(found)} (first: {found[0].where}); their tags and boxes "
        f"are used, and in the ground truth their boxes are {IGNORE}, which no score counts{without}"
    )


def read_box(bbox: Any, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """An annotation's ``bbox`` in whole pixels inside its image, rounded outwards.

    Args:
        bbox: What the JSON holds: left, top, width and height.
        size: Height and width of its image.

    Returns:
        Left, top, right and bottom edge; None where there is no box in pixels, or none inside the image.
    """
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(value) not in (int, float) for value in bbox):
        return None
    if are_shares(bbox) or min(bbox[2:]) <= 0 or max(map(abs, bbox)) > _FAR:
        return None
    left, top = max(0, math.floor(bbox[0])), max(0, math.floor(bbox[1]))
    right, bottom = min(size[1], math.ceil(bbox[0] + bbox[2])), min(size[0], math.ceil(bbox[1] + bbox[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def read_shape(segmentation: Any, size: tuple[int, int], where: str) -> Shape | None:
    """Check one annotation's ``segmentation`` and make it compact.

    Args:
        segmentation: What the JSON holds: polygons, an object with ``size`` and ``counts``, or None.
        size: Height and width of its image.
        where: File and annotation, to begin an error with.

    Returns:
        The shape; None where there is nothing to draw: no polygon, none of three points or more, none with an extent,
        no pixel in the run lengths, or coordinates that are shares of the image's sides instead of pixels.

    Raises:
        DatasetError: It is neither, or run lengths are of another size.
    """
    if segmentation is None or segmentation in ({}, ""):
        return None
    if isinstance(segmentation, dict):
        return _read_runs(segmentation, size, where)
    try:
        rings = [array("d", ring) for ring in segmentation]
    except (TypeError, OverflowError) as error:
        raise DatasetError(f"{where}: its segmentation is no list of polygons [x, y, x, y, ...]") from error
    for ring in rings:
        if len(ring) % 2 or max(ring, default=0) > _FAR or min(ring, default=0) < -_FAR:
            raise DatasetError(f"{where}: a polygon has a coordinate too many, or one that lies in no image")
    rings = [ring for ring in rings if len(ring) >= 6 and _has_extent(ring)]
    if all(max(ring) <= 1 for ring in rings) and are_shares([value for ring in rings for value in ring]):
        return None
    return tuple(ring.tobytes() for ring in rings) or None


def _read_runs(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> Shape | None:
    """Run lengths of COCO, checked; None where they have no pixel."""
    counts = segmentation.get("counts")
    if segmentation.get("size") != list(size):
        raise DatasetError(f"{where}: run lengths of size {segmentation.get('size')}; wanted {list(size)}")
    if isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts):
        if sum(counts) == size[0] * size[1]:
            return {"size": list(size), "counts": counts} if any(counts[1::2]) else None
    elif isinstance(counts, str) and counts.isascii():
        return {"size": list(size), "counts": counts.encode()}
    raise DatasetError(f"{where}: its run lengths do not fill the image")


def _has_extent(ring: array[float]) -> bool:
    """Whether a polygon is more than a point or an upright or level line; long ones are, and take time to look at."""
    if len(ring) > 12:
        return True
    return min(ring[::2]) < max(ring[::2]) and min(ring[1::2]) < max(ring[1::2])


def run_lengths(shape: Shape, height: int, width: int) -> dict[str, Any]:
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
