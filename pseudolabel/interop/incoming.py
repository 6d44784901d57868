"""What every reader hands back: the corrected label map of each image that a file holds, checked against its parent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.data.json_files import record_id
from pseudolabel.data.lists import background_name
from pseudolabel.data.names import nfc
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.formatting import short

UNLABELLED = "unlabelled"
"""A label of this name, which no class has, marks pixels that nothing is said about: 255."""


class Correction(NamedTuple):
    """One image that a file of corrections holds.

    Attributes:
        image: Its id in the parent.
        draw: Makes its label map, uint8 (H, W), 0 where the file has no object.
    """

    image: str
    draw: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Parent:
    """The masks that people were given to correct.

    Attributes:
        path: Their file.
        classes: Names by class index, background first.
        sizes: Height and width by image id.
    """

    path: Path
    classes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]

    @cached_property
    def _short(self) -> Mapping[str, Sequence[str]]:
        """Ids by the last part of their name: many tools forget the folders."""
        found: dict[str, list[str]] = {}
        for name in self.sizes:
            found.setdefault(PurePosixPath(name).name, []).append(name)
        return found

    def find(self, name: str, source: Path) -> str:
        """The id of an image that a file names, with or without folders and ending.

        Args:
            name: As the tool spells it.
            source: The file, for the message.

        Raises:
            DatasetError: The parent has no such image, or several.
        """
        spelt = nfc(name).replace("\\", "/")
        for whole in (record_id(spelt), spelt):
            if whole in self.sizes:
                return whole
        found = self._short.get(PurePosixPath(record_id(spelt)).name, ())
        if not found:
            raise DatasetError(
                f"{source}: image {name!r} is none of the {len(self.sizes)} images of {self.path}; pass the masks that "
                "were corrected as --masks"
            )
        if len(found) > 1:
            raise DatasetError(
                f"{source}: image {name!r} could be {found[0]!r} or {found[1]!r} of {self.path}; keep the folders in "
                "the names"
            )
        return found[0]

    def label(self, name: str, source: Path) -> int:
        """The class index of a label; 0 for one that is called background, 255 for ``unlabelled``.

        Raises:
            DatasetError: No class has this name.
        """
        known = nfc(name)
        if known in self.classes:
            return self.classes.index(known)
        if background_name(known):
            return 0
        if known == UNLABELLED:
            return IGNORE
        raise DatasetError(
            f"{source}: label {name!r} is no class of {self.path} ({short(self.classes[1:])}); rename it, or "
            "remove its objects"
        )

    def require_size(self, image: str, size: Sequence[Any], source: Path) -> None:
        """Refuse an image that was corrected at another size.

        Args:
            image: Its id.
            size: Height and width that the file states.
            source: The file, for the message.

        Raises:
            DatasetError: It is another one.
        """
        height, width = self.sizes[image]
        if tuple(size) != (height, width):
            raise DatasetError(
                f"{source}: image {image!r} is {size[1]} x {size[0]} pixels there and {width} x {height} in "
                f"{self.path}; correct the masks at the size of the photographs"
            )


def draw_shapes(shapes: Iterable[tuple[int, Mapping[str, Any]]], size: tuple[int, int]) -> np.ndarray:
    """Draw objects over each other, from the largest to the smallest, so that small ones stay visible.

    Args:
        shapes: Label and pycocotools' run lengths of each.
        size: Height and width.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: Run lengths are broken.
    """
    from pycocotools import mask as coco_mask

    drawn = np.zeros(size, dtype=np.uint8)
    for label, runs in sorted(shapes, key=lambda pair: -int(coco_mask.area(pair[1]))):
        drawn[coco_mask.decode(runs).astype(bool)] = label
    return drawn


def as_runs(inside: np.ndarray) -> dict[str, Any]:
    """A mask bool (H, W) as pycocotools' run lengths."""
    from pycocotools import mask as coco_mask

    runs: dict[str, Any] = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
    return runs
