"""Ragged maps: flat arrays plus offsets, so that 100,000 images cost no more to open than one.

Map k covers ``values[offset[k]:offset[k + 1]]``, shaped ``(height[k], width[k])``, and belongs to image ``image[k]`` and,
where there is one map a class, to class ``class[k]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pseudolabel.artefacts.header import CostMeter, Header
from pseudolabel.artefacts.store import (
    Artefact,
    check_output,
    partial_path,
    publish,
    stamp,
    write_array,
    write_header,
    writing,
)
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.options import STAGES, role_of

_CHUNK = 1 << 16  # values a chunk: small enough to read one map, large enough to compress
_COMMIT = 1 << 22  # bytes gathered before a commit


class StalePartialError(InputError):
    """A half-finished artefact was begun with other options or inputs."""


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


class MapsWriter:
    """Writes ``cams``, ``soft-labels`` and ``masks`` image by image, and goes on where a killed run stopped.

    The caller adds images in an order that is the same in every run and skips the first ``done`` of them::

        with MapsWriter(out, header, images, dtype="float16", cost=cost) as writer:
            for index in order[writer.done:]:
                writer.add(index, {label: map})

    Leaving the block normally finishes the artefact; leaving it by an error keeps the partial file.
    """

    def __init__(
        self,
        out: Path,
        header: Header,
        images: Images,
        *,
        dtype: str,
        cost: CostMeter | None = None,
        overwrite: bool = False,
    ) -> None:
        check_output(out, overwrite=overwrite)
        self.out = out
        self.done = 0
        self.skipped: list[tuple[str, str]] = []
        self._header = header
        self._images = images
        self._per_class = header.kind != "masks"
        self._dtype = np.dtype(dtype)
        self._partial = partial_path(out)
        self._clear()
        with writing(self._partial):
            self._file = self._reopen() if self._partial.exists() and not overwrite else self._begin()
        spent = json.loads(self._file.attrs["cost"])
        self._cost = CostMeter(spent) if cost is None or spent else cost

    def add(self, image: int, maps: Mapping[int, np.ndarray] | np.ndarray) -> None:
        """Add all maps of one image.

        Args:
            image: Index into the images.
            maps: Class index to array (h, w); for masks, the one label map (H, W).
        """
        named = maps.items() if isinstance(maps, Mapping) else [(0, maps)]
        for label, array in named:
            if array.ndim != 2:
                raise ValueError(f"a map must have two dimensions, found shape {array.shape}")
            self._values.append(np.ascontiguousarray(array, dtype=self._dtype).ravel())
            self._rows.append((image, int(label), *array.shape))
            self._bytes += self._values[-1].nbytes
        self._pending += 1
        if self._bytes >= _COMMIT or self._pending >= 256:
            self.commit()

    def skip(self, image: int, reason: str) -> None:
        """Record that an image could not be used."""
        self.skipped.append((self._images.ids[image], reason))
        self._pending += 1

    def commit(self) -> None:
        """Put everything added so far safely into the partial file."""
        with writing(self._partial):
            maps = self._file["maps"]
            if self._rows:
                rows = np.asarray(self._rows, dtype=np.int64)
                ends = int(maps["offset"][-1]) + np.cumsum([len(values) for values in self._values])
                _append(maps["values"], np.concatenate(self._values))
                _append(maps["offset"], ends)
                for column, name in enumerate(("image", "class", "height", "width")):
                    if name in maps:
                        _append(maps[name], rows[:, column])
            self.done += self._pending
            self._file.attrs["cost"] = json.dumps(self._cost.read(self.done))
            self._file.attrs["skipped"] = json.dumps(self.skipped)
            self._file.attrs["committed"] = (self.done, maps["image"].shape[0], maps["values"].shape[0])
            self._file.flush()
        self._clear()

    def finish(self) -> Path:
        """Commit, stamp and publish; returns the artefact's path."""
        self.commit()
        with writing(self._partial):
            cost = self._cost.read(self.done)
            del self._file.attrs["committed"], self._file.attrs["skipped"]
            if self.skipped:
                write_array(self._file, "skipped/id", np.asarray([name for name, _ in self.skipped], dtype=object))
                write_array(self._file, "skipped/reason", np.asarray([why for _, why in self.skipped], dtype=object))
            stamp(self._file, self._header, cost)
            self._file.close()
            return publish(self._partial, self.out)

    def __enter__(self) -> MapsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
            elif issubclass(kind, KeyboardInterrupt):
                self.commit()
        finally:
            self._file.close()

    def _clear(self) -> None:
        self._values: list[np.ndarray] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._bytes = 0
        self._pending = 0

    def _begin(self) -> h5py.File:
        file = h5py.File(self._partial, "w")
        write_header(file, self._header)
        write_array(file, "images/id", np.asarray(self._images.ids, dtype=object))
        write_array(file, "images/height", np.asarray(self._images.heights, dtype=np.int32))
        write_array(file, "images/width", np.asarray(self._images.widths, dtype=np.int32))
        kinds = {"image": "int32", "class": "uint8", "height": "int32", "width": "int32"}
        for name, kind in kinds.items():
            if name != "class" or self._per_class:
                _growing(file, f"maps/{name}", kind)
        _growing(file, "maps/values", self._dtype)
        _growing(file, "maps/offset", "int64")
        _append(file["maps/offset"], np.zeros(1, dtype=np.int64))
        file.attrs["committed"] = (0, 0, 0)
        file.attrs["skipped"] = "[]"
        file.flush()
        return file

    def _reopen(self) -> h5py.File:
        """Pick up a partial file: same making, truncated to its last commit. An unreadable one is begun anew."""
        try:
            file = h5py.File(self._partial, "r+")
            done, rows, values = (int(number) for number in file.attrs["committed"])
        except (OSError, KeyError):
            return self._begin()
        changed = _difference(file, self._header, self._images)
        if changed:
            file.close()
            raise StalePartialError(
                f"{self._partial} was begun with another {changed}; pass --overwrite to start anew, or another --out"
            )
        for name in file["maps"]:
            length = {"values": values, "offset": rows + 1}.get(name, rows)
            file["maps"][name].resize((length,))
        self.done = done
        self.skipped = [(name, why) for name, why in json.loads(file.attrs["skipped"])]
        return file


class MapsReader:
    """Reads the maps of an open artefact, one image at a time and lazily."""

    def __init__(self, artefact: Artefact) -> None:
        self.header = artefact.header
        self.path = artefact.path
        self._file = artefact.file
        self._values = artefact.file["maps/values"]

    def __len__(self) -> int:
        return int(self._file["images/id"].shape[0])

    @cached_property
    def images(self) -> Images:
        """Ids and sizes of all images, read once."""
        group = self._file["images"]
        return Images(tuple(group["id"].asstr()[:]), group["height"][:], group["width"][:])

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Id to reason, of the images that could not be used."""
        if "skipped" not in self._file:
            return {}
        group = self._file["skipped"]
        return dict(zip(group["id"].asstr()[:], group["reason"].asstr()[:], strict=True))

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of /maps sorted by image, and where each image's rows begin (N + 1)."""
        image = self._file["maps/image"][:]
        order = np.argsort(image, kind="stable")
        return order, np.searchsorted(image[order], np.arange(len(self) + 1))

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        names = [name for name in ("offset", "class", "height", "width") if name in self._file["maps"]]
        return {name: self._file["maps"][name][:] for name in names}

    def maps(self, image: int) -> dict[int, np.ndarray]:
        """Class index to stored map (h, w) of one image, in the stored dtype; masks stand under 0.

        Raises:
            ArtefactError: The map's size and its share of the values disagree.
        """
        order, begin = self._rows
        columns = self._columns
        found: dict[int, np.ndarray] = {}
        for row in order[begin[image] : begin[image + 1]]:
            low, high = columns["offset"][row], columns["offset"][row + 1]
            shape = (int(columns["height"][row]), int(columns["width"][row]))
            if high - low != shape[0] * shape[1]:
                raise ArtefactError(f"{self.path}: map {row} in 'maps' has {high - low} values but size {shape}; make it again")
            label = int(columns["class"][row]) if "class" in columns else 0
            found[label] = self._values[low:high].reshape(shape)
        return found

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
        size = (int(self.images.heights[image]), int(self.images.widths[image]))
        stored = sorted(self.maps(image).items())
        labels = np.asarray([label for label, _ in stored], dtype=np.int64)
        if not stored:
            return labels, np.zeros((0, *size), dtype=np.float32)
        return labels, np.stack([enlarge(_as_share(array), size) for _, array in stored])


def enlarge(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a float map (h, w) bilinearly to ``size`` = (H, W); pixel centres, not corners, are aligned."""
    if array.shape == size:
        return np.asarray(array, dtype=np.float32)
    image = Image.fromarray(np.ascontiguousarray(array, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _as_share(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)


def _growing(file: h5py.File, name: str, dtype: Any) -> None:
    file.create_dataset(
        name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(_CHUNK,), compression="gzip", compression_opts=4, shuffle=True
    )


def _append(dataset: h5py.Dataset, values: Iterable[Any] | np.ndarray) -> None:
    values = np.asarray(values)
    start = dataset.shape[0]
    dataset.resize((start + len(values),))
    dataset[start:] = values


def _difference(file: h5py.File, header: Header, images: Images) -> str | None:
    """The first thing in which a partial file differs from what is asked for now, in words."""
    stored = json.loads(file.attrs["options"])
    model = STAGES[header.stage]
    for name, value in header.options.items():
        if role_of(model, name) == "option" and stored.get(name) != value:
            return f"--{name.replace('_', '-')} ({stored.get(name)!r}, now {value!r})"
    now = [(item.kind, item.digest) for item in header.inputs]
    before = [(item["kind"], item["digest"]) for item in json.loads(file.attrs["inputs"])]
    if now != before:
        return "input (" + ", ".join(kind for kind, _ in now) + " differ by digest)"
    return None if tuple(file["images/id"].asstr()[:]) == images.ids else "list of images"

