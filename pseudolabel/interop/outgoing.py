"""What every writer is given: the masks of an export, and the objects in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from pseudolabel.artefacts.atomic import writing
from pseudolabel.data.images import read_label_png
from pseudolabel.data.records import IGNORE
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outgoing:
    """One image on its way out.

    Attributes:
        id: Its id in the data set.
        number: The data set's own number of it, an integer; else its place, from 1.
        photograph: Where the photograph lies.
        png: Where the PNG of its mask lies.
        size: Height and width, pixels.
        confidence: Mean over its pixels of the largest probability, in [0, 1]; None where there are no soft labels.
    """

    id: str
    number: int
    photograph: Path
    png: Path
    size: tuple[int, int]
    confidence: float | None = None

    @property
    def file_name(self) -> str:
        """The id with the ending of the photograph."""
        return f"{self.id}{self.photograph.suffix}"


@dataclass(frozen=True)
class Export:
    """All that a writer needs.

    Attributes:
        classes: Names by class index, background first.
        categories: The data set's own number of each class by class index; entry 0 is unused.
        split: Name of the split, for the formats that have folders of that name.
        root: Folder of the data set.
        images: In the order of the split.
        instances: One annotation a connected region of a class, not one a class.
        workers: As of ``ordered_map``.
        progress: Where to report.
    """

    classes: tuple[str, ...]
    categories: tuple[int, ...]
    split: str
    root: Path
    images: Sequence[Outgoing]
    instances: bool = False
    workers: int | None = 1
    progress: Progress = field(default_factory=Progress)

    def each(self, work: Callable[[Outgoing], Result]) -> Iterator[tuple[Outgoing, Result]]:
        """Every image with what ``work`` makes of it, in worker processes, in order."""
        results = ordered_map(work, self.images, workers=self.workers)
        with closing(results), self.progress.track(len(self.images), "images written") as advance:
            for image, result in zip(self.images, results, strict=True):
                yield image, result
                advance(1)


def object_regions(labels: np.ndarray, *, instances: bool) -> list[tuple[int, np.ndarray]]:
    """The objects of one label map; background and unlabelled pixels are none.

    Args:
        labels: uint8 (H, W), 255 = unlabelled.
        instances: An object a connected region (pixels that touch at a side or a corner), not one a class.

    Returns:
        Class index and bool (H, W) of each, by ascending class and, within it, by the first pixel in reading order.
    """
    found = []
    for label in np.unique(labels).tolist():
        if label in (0, IGNORE):
            continue
        inside = labels == label
        if not instances:
            found.append((label, inside))
            continue
        from scipy import ndimage

        numbered, count = ndimage.label(inside, structure=np.ones((3, 3)))
        found += [(label, numbered == number) for number in range(1, count + 1)]
    return found


def read_regions(image: Outgoing, *, instances: bool) -> list[tuple[int, np.ndarray]]:
    """The objects of one image's mask, as ``object_regions`` has them."""
    return object_regions(read_label_png(image.png), instances=instances)


def copy_photograph(image: Outgoing, place: Path) -> None:
    """Copy a photograph, byte by byte, for a format that keeps photographs beside the labels."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.photograph, place)
