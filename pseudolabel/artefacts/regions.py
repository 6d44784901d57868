"""Artefacts of kind ``regions``: flat arrays plus offsets, so that 100,000 images cost no more to open than one."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.image_writer import ImageWriter
from pseudolabel.artefacts.maps import ImageReader
from pseudolabel.artefacts.run_lengths import NO_CLASS, Regions
from pseudolabel.artefacts.store import write_array
from pseudolabel.errors import ArtefactError

_LEVEL = 4  # of gzip
_CHUNK = 1 << 14  # run lengths a chunk
_ROW = np.dtype(
    [("image", "<i4"), ("runs", "<i4"), ("area", "<i4"), ("score", "<f4"), ("class", "u1"), ("box", "<f4", (4,))]
)


class RegionsReader(ImageReader):
    """Reads the regions of an open artefact, one image at a time and lazily."""

    @cached_property
    def classed(self) -> bool:
        """Whether any region has a class."""
        return "regions/class" in self._file and bool((self._file["regions/class"][:] != NO_CLASS).any())

    @cached_property
    def _begin(self) -> np.ndarray:
        """Where each image's regions begin: int64 (N + 1,)."""
        return np.searchsorted(self._file["regions/image"][:], np.arange(len(self) + 1))

    def regions(self, image: int) -> Regions:
        """The regions of one image.

        Raises:
            ArtefactError: Run lengths cannot be read, do not fill the image, or are not of the area that is stated.
        """
        first, last = (int(place) for place in self._begin[image : image + 2])
        size = int(self.images.heights[image]), int(self.images.widths[image])
        group, rows = self._file["regions"], slice(first, last)
        offset = self._file["runs/offset"][first : last + 1].astype(np.int64)
        try:
            runs = self._file["runs/length"][offset[0] : offset[-1]].astype(np.int64)
        except OSError as error:
            raise ArtefactError(f"{self.path}: 'runs/length' is damaged ({error}); make it again") from error
        self._check_runs(runs, offset - offset[0], size, group["area"][rows].astype(np.int64), first)
        count = last - first
        return Regions(
            size,
            runs.astype(np.uint32),
            offset - offset[0],
            group["score"][rows].astype(np.float32),
            group["class"][rows].astype(np.uint8) if "class" in group else np.full(count, NO_CLASS, np.uint8),
            group["box"][rows].astype(np.float32) if "box" in group else np.full((count, 4), np.nan, np.float32),
            tuple(group["prompt"].asstr()[rows]) if "prompt" in group else ("",) * count,
        )

    def _check_runs(
        self, runs: np.ndarray, offset: np.ndarray, size: tuple[int, int], area: np.ndarray, first: int
    ) -> None:
        if not len(area):
            return
        total = np.add.reduceat(runs, offset[:-1])
        place = np.arange(len(runs)) - np.repeat(offset[:-1], np.diff(offset))
        inside = np.add.reduceat(np.where(place % 2 == 1, runs, 0), offset[:-1])
        empty = np.add.reduceat((place > 0) & (runs == 0), offset[:-1]) > 0
        for wrong, text in (
            (empty, "has an empty run"),
            (total != size[0] * size[1], "does not fill its image"),
            (inside != area, "is not of the area in 'regions/area'"),
        ):
            if wrong.any():
                region = first + int(np.flatnonzero(wrong)[0])
                raise ArtefactError(f"{self.path}: region {region} in 'runs/length' {text}; make it again")


class RegionsWriter(ImageWriter[Regions]):
    """Writes ``regions`` image by image; images are added in ascending order."""

    def add(self, image: int, regions: Regions) -> None:
        """Add all regions of one image, whose size they must have.

        Args:
            image: Index into the images.
            regions: What was found; may be none.
        """
        size = int(self._images.heights[image]), int(self._images.widths[image])
        if regions.size != size:
            raise ValueError(f"regions of {regions.size} for an image of {size}")
        self._gather(image, regions, regions.runs.nbytes + len(regions) * _ROW.itemsize)

    def _pack(self, found: Sequence[tuple[int, Regions]]) -> tuple[dict[str, Any], list[bytes]]:
        rows = np.zeros(sum(len(regions) for _, regions in found), dtype=_ROW)
        start = 0
        for image, regions in found:
            part = rows[start : start + len(regions)]
            part["image"], part["runs"], part["area"] = image, np.diff(regions.offset), regions.area
            part["score"], part["class"], part["box"] = regions.score, regions.label, regions.box
            start += len(regions)
        runs = np.concatenate([np.zeros(0, np.uint32), *(regions.runs for _, regions in found)]).astype("<u4")
        prompts = [prompt for _, regions in found for prompt in regions.prompt]
        parts = [zlib.compress(array.tobytes(), _LEVEL) for array in (rows, runs)]
        return {"prompts": prompts if any(prompts) else None, "runs": len(runs)}, parts

    def _resume(self, facts: Mapping[str, Any], parts: Sequence[bytes]) -> None:
        """Nothing: a commit holds all of its images."""

    def _write(self, file: h5py.File) -> None:
        rows, prompts = [np.zeros(0, dtype=_ROW)], list[str]()
        total = sum(facts["runs"] for facts, _ in self._records())
        lengths = file.create_dataset(
            "runs/length",
            shape=(total,),
            maxshape=(None,),
            dtype=np.uint32,
            chunks=(_CHUNK,),
            compression="gzip",
            compression_opts=_LEVEL,
            shuffle=True,
        )
        start = 0
        for facts, (packed, runs) in self._records():
            rows.append(np.frombuffer(zlib.decompress(packed), dtype=_ROW))
            prompts += facts["prompts"] or [""] * len(rows[-1])
            values = np.frombuffer(zlib.decompress(runs), dtype="<u4")
            lengths[start : start + len(values)] = values
            start += len(values)
        table = np.concatenate(rows)
        ends = np.cumsum(table["runs"], dtype=np.int64)
        write_array(file, "runs/offset", np.concatenate([np.zeros(1, dtype=np.int64), ends]))
        for name in ("image", "area", "score"):
            write_array(file, f"regions/{name}", np.ascontiguousarray(table[name]))
        if (table["class"] != NO_CLASS).any():
            write_array(file, "regions/class", np.ascontiguousarray(table["class"]))
        if np.isfinite(table["box"]).any():
            write_array(file, "regions/box", np.ascontiguousarray(table["box"]))
        if any(prompts):
            write_array(file, "regions/prompt", np.asarray(prompts, dtype=object))
