"""Writing maps image by image, as whole chunks of the HDF5 file to be."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.header import CostMeter, Header
from pseudolabel.artefacts.image_writer import ImageWriter
from pseudolabel.artefacts.maps import Images
from pseudolabel.artefacts.store import write_array

_CHUNK = 1 << 16  # values a chunk: small enough to read one map, large enough to compress
_LEVEL = 4  # of gzip: higher ones take long and save little


class MapsWriter(ImageWriter[Mapping[int, np.ndarray]]):
    """Writes ``cams``, ``soft-labels`` and ``masks`` image by image.

    The journal's records hold whole chunks as HDF5 will store them, so that finishing only copies; the values that do
    not fill a chunk yet are in the last record.
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
        self._dtype = np.dtype(dtype)
        self._tail = np.zeros(0, dtype=self._dtype)
        self._total = 0
        super().__init__(out, header, images, cost=cost, overwrite=overwrite)

    def add(self, image: int, maps: Mapping[int, np.ndarray] | np.ndarray) -> None:
        """Add all maps of one image.

        Args:
            image: Index into the images.
            maps: Class index to array (h, w); for masks, the one label map (H, W).
        """
        named = maps if isinstance(maps, Mapping) else {0: maps}
        for array in named.values():
            if array.ndim != 2:
                raise ValueError(f"a map must have two dimensions, found shape {array.shape}")
        found = {int(label): np.ascontiguousarray(array, dtype=self._dtype) for label, array in named.items()}
        self._gather(image, found, sum(array.nbytes for array in found.values()))

    def _pack(self, found: Sequence[tuple[int, Mapping[int, np.ndarray]]]) -> tuple[dict[str, Any], list[bytes]]:
        rows = [(image, label, *array.shape) for image, maps in found for label, array in maps.items()]
        values = np.concatenate([self._tail, *(array.ravel() for _, maps in found for array in maps.values())])
        total = self._total + len(values) - len(self._tail)
        cut = len(values) - len(values) % _CHUNK
        chunks = [_packed(values[start : start + _CHUNK]) for start in range(0, cut, _CHUNK)]
        tail = zlib.compress(values[cut:].tobytes(), _LEVEL)
        return {"total": total}, [np.asarray(rows, dtype=np.int32).tobytes(), tail, *chunks]

    def _resume(self, facts: Mapping[str, Any], parts: Sequence[bytes]) -> None:
        self._total = facts["total"]
        self._tail = np.frombuffer(zlib.decompress(parts[1]), dtype=self._dtype)

    def _write(self, file: h5py.File) -> None:
        """Copy the journal's chunks and rows into /maps."""
        values = file.create_dataset(
            "maps/values",
            shape=(self._total,),
            maxshape=(None,),
            dtype=self._dtype,
            chunks=(_CHUNK,),
            compression="gzip",
            compression_opts=_LEVEL,
            shuffle=True,
        )
        rows = [np.zeros((0, 4), dtype=np.int32)]
        start = 0
        for _, (found, _, *chunks) in self._records():
            rows.append(np.frombuffer(found, dtype=np.int32).reshape(-1, 4))
            for chunk in chunks:
                values.id.write_direct_chunk((start,), chunk)
                start += _CHUNK
        if len(self._tail):
            values.id.write_direct_chunk((start,), _packed(np.pad(self._tail, (0, _CHUNK - len(self._tail)))))
        table = np.concatenate(rows)
        ends = np.cumsum(table[:, 2].astype(np.int64) * table[:, 3])
        write_array(file, "maps/offset", np.concatenate([np.zeros(1, dtype=np.int64), ends]))
        write_array(file, "maps/image", table[:, 0])
        if self._header.kind != "masks":
            write_array(file, "maps/class", table[:, 1].astype(np.uint8))
        write_array(file, "maps/height", table[:, 2])
        write_array(file, "maps/width", table[:, 3])


def _packed(values: np.ndarray) -> bytes:
    """One chunk as HDF5's shuffle and gzip filters store it: first all first bytes, then all second ones; zlib."""
    return zlib.compress(values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes(), _LEVEL)
