"""Ragged maps: flat arrays plus offsets, so that 100,000 images cost no more to open than one.

Map k covers ``values[offset[k]:offset[k + 1]]``, shaped ``(height[k], width[k])``. It belongs to image ``image[k]``,
and to class ``class[k]`` where a class has a map of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from pseudolabel.artefacts.store import Artefact
from pseudolabel.errors import ArtefactError


@dataclass(frozen=True)
class Images:
    """The images an artefact is about, in order.

    Attributes:
        ids: N names.
        heights: int32 (N,), pixels.
        widths: int32 (N,), pixels.
    """

    ids: tuple[str, ...]
    heights: np.ndarray
    widths: np.ndarray

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of every image, by its name."""
        return dict(zip(self.ids, zip(self.heights.tolist(), self.widths.tolist(), strict=True), strict=True))


class ImageReader:
    """Which images an open artefact is about, and which of them could not be used."""

    def __init__(self, artefact: Artefact) -> None:
        self.header = artefact.header
        self.path = artefact.path
        self._file = artefact.file

    def __len__(self) -> int:
        return int(self._file["images/id"].shape[0])

    @cached_property
    def images(self) -> Images:
        """Ids and sizes of all images, read once."""
        group = self._file["images"]
        return Images(tuple(group["id"].asstr()[:]), group["height"][:], group["width"][:])

    @cached_property
    def places(self) -> dict[str, int]:
        """Id to index of every image."""
        return {name: index for index, name in enumerate(self.images.ids)}

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Id to reason, of the images that could not be used."""
        if "skipped" not in self._file:
            return {}
        group = self._file["skipped"]
        return dict(zip(group["id"].asstr()[:], group["reason"].asstr()[:], strict=True))


class MapsReader(ImageReader):
    """Reads the maps of an open artefact, one image at a time and lazily."""

    def __init__(self, artefact: Artefact) -> None:
        super().__init__(artefact)
        self._values = artefact.file["maps/values"]

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of /maps sorted by image, and where each image's rows begin (N + 1)."""
        image = self._file["maps/image"][:]
        order = np.argsort(image, kind="stable")
        return order, np.searchsorted(image[order], np.arange(len(self) + 1))

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """Offset, class, height and width of every map."""
        group = self._file["maps"]
        return {name: group[name][:] for name in ("offset", "class", "height", "width") if name in group}

    def maps(self, image: int) -> dict[int, np.ndarray]:
        """Class index to stored map (h, w) of one image, in the stored dtype; masks stand under 0.

        Raises:
            ArtefactError: The values cannot be read or are out of range, or soft labels of an image that was not
                skipped name no class.
        """
        order, begin = self._rows
        columns = self._columns
        found: dict[int, np.ndarray] = {}
        for row in order[begin[image] : begin[image + 1]]:
            label = int(columns["class"][row]) if "class" in columns else 0
            try:
                values = self._values[columns["offset"][row] : columns["offset"][row + 1]]
            except OSError as error:
                raise ArtefactError(
                    f"{self.path}: map {row} in 'maps/values' is damaged ({error}); make it again"
                ) from error
            if wrong := self._out_of_range(values):
                raise ArtefactError(f"{self.path}: map {row} in 'maps/values' holds {wrong}; make it again")
            found[label] = values.reshape(int(columns["height"][row]), int(columns["width"][row]))
        if self.header.kind == "soft-labels" and not found.keys() - {self.header.ignore_value}:
            name = self.images.ids[image]
            if name not in self.skipped:
                raise ArtefactError(f"{self.path}: image {name!r} has no soft label of any class; make it again")
        return found

    def _out_of_range(self, values: np.ndarray) -> str:
        """The first value that cannot be there and what was wanted, in words, or nothing."""
        if self.header.kind == "masks":
            fine = (values < len(self.header.classes)) | (values == self.header.ignore_value)
            wanted = f"a class below {len(self.header.classes)} or {self.header.ignore_value}"
        elif values.dtype.kind == "f":
            fine, wanted = _are_shares(values), "0 to 1"
        else:
            return ""
        return "" if fine.all() else f"{values[np.flatnonzero(~fine)[0]]}, wanted {wanted}"

    def labels(self, image: int) -> np.ndarray:
        """The label map of one image of a ``masks`` artefact: uint8 (H, W)."""
        maps = self.maps(image)
        if not maps:
            raise ArtefactError(f"{self.path}: image {self.images.ids[image]!r} has no mask; make it again")
        return maps[0]

    def full_size(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """The maps of one image at image size.

        Returns:
            labels: int64 (P,), the class indices present, ascending.
            maps: float32 (P, H, W) in [0, 1]; stored maps are enlarged bilinearly, 8-bit ones divided by 255.
        """
        return at_size(self.maps(image), self.size(image))

    def size(self, image: int) -> tuple[int, int]:
        """Height and width of one image, pixels."""
        return int(self.images.heights[image]), int(self.images.widths[image])


def at_size(
    stored: Mapping[int, np.ndarray], size: tuple[int, int], columns: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Stored maps of one image, class index to array (h, w), as ``MapsReader.full_size`` returns them.

    Args:
        stored: What ``MapsReader.maps`` returns.
        size: (H, W) of the image.
        columns: First column, and the one after the last, of the part that is wanted; None: all.
    """
    labels = np.asarray(sorted(stored), dtype=np.int64)
    if not stored:
        return labels, np.zeros((0, size[0], columns[1] - columns[0] if columns else size[1]), dtype=np.float32)
    return labels, np.stack([enlarge(_as_share(stored[int(label)]), size, columns) for label in labels])


def bands(maps: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Parts of an image, from column to column, in each of which maps at image size take up to 256 MiB.

    Args:
        maps: How many there are.
        size: (H, W) of the image.
    """
    columns = max(1, _MOST // max(1, 4 * maps * size[0]))
    return [(left, min(left + columns, size[1])) for left in range(0, size[1], columns)]


def enlarge(array: np.ndarray, size: tuple[int, int], columns: tuple[int, int] | None = None) -> np.ndarray:
    """Resize a float map (h, w) bilinearly to ``size`` = (H, W); pixel centres, not corners, are aligned.

    Args:
        array: The map.
        size: Of the result.
        columns: As of ``at_size``. The numbers are those of the whole, as Pillow resizes rows first, then each column
            on its own.
    """
    left, right = columns or (0, size[1])
    if array.shape == size:
        return np.asarray(array[:, left:right], dtype=np.float32)
    image = Image.fromarray(np.ascontiguousarray(array, dtype=np.float32))
    if columns is not None:
        image = image.resize((size[1], len(array)), Image.Resampling.BILINEAR).crop((left, 0, right, len(array)))
    return np.asarray(image.resize((right - left, size[0]), Image.Resampling.BILINEAR))


_MOST = 1 << 28  # bytes of maps at image size


def _are_shares(values: np.ndarray) -> np.ndarray:
    """Whether each float is in [0, 1]."""
    if values.dtype == np.float16:  # NumPy compares these slowly; as integers they have the same order up to infinity
        bits = values.view(np.uint16)
        return np.asarray((bits <= _ONE) | (bits == _MINUS_ZERO))
    return np.asarray((values >= 0) & (values <= 1))


_ONE, _MINUS_ZERO = np.float16(1).view(np.uint16), np.float16(-0.0).view(np.uint16)


def _as_share(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
