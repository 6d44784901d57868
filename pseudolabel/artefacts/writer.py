"""Writing maps image by image: into a journal first, and into HDF5 once all of them are there."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.atomic import partial_path, writing
from pseudolabel.artefacts.header import CostMeter, Header, Input, made_differently
from pseudolabel.artefacts.journal import Journal
from pseudolabel.artefacts.maps import Images
from pseudolabel.artefacts.store import check_output, new_file, stamp, write_array
from pseudolabel.errors import DatasetError, InputError

_CHUNK = 1 << 16  # values a chunk: small enough to read one map, large enough to compress
_COMMIT = 1 << 22  # bytes gathered before a commit
_IMAGES = 256  # images gathered before a commit
_LEVEL = 4  # of gzip: higher ones take long and save little


class StalePartialError(InputError):
    """A half-finished artefact was begun with other options or inputs."""


def begin(journal: Journal, header: Header, images: str) -> None:
    """Write what a stage will make into its new journal, or make sure that an old one was begun for the same.

    Args:
        journal: Closed if it was not.
        header: Of the artefact to be.
        images: A digest of the images' list.

    Raises:
        StalePartialError: It was begun with other options, inputs or images.
    """
    if not len(journal):
        facts = {"stage": header.stage, "options": dict(header.options), "images": images}
        journal.append(facts | {"inputs": [vars(item) for item in header.inputs]})
        return
    begun, _ = journal.record(0)
    changed = made_differently(begun["options"], [Input(**item) for item in begun["inputs"]], header)
    if changed is None and begun["images"] != images:
        changed = "list of images"
    if changed:
        journal.close()
        raise StalePartialError(
            f"{journal.path} was begun with another {changed}; pass --overwrite to start anew, or another --out"
        )


class MapsWriter:
    """Writes ``cams``, ``soft-labels`` and ``masks`` image by image, and goes on where a killed run stopped.

    The caller adds images in an order that is the same in every run and skips the first ``done`` of them::

        with MapsWriter(out, header, images, dtype="float16", cost=cost) as writer:
            for index in order[writer.done:]:
                writer.add(index, {label: map})

    Leaving the block normally finishes the artefact, unless every image was skipped; leaving it by an error keeps the
    partial file, a ``Journal``, but for an ``InputError`` before anything was committed. Its records hold whole
    chunks as HDF5 will store them, so that finishing only copies; the values that do not fill a chunk yet are in the
    last record.
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
        self._header = header
        self._images = images
        self._dtype = np.dtype(dtype)
        self._pending: list[tuple[int, Mapping[int, np.ndarray] | str]] = []
        self._pending_bytes = 0
        self._committing = False
        self._skipped: list[tuple[str, str]] = []
        self._tail = np.zeros(0, dtype=self._dtype)
        self._total = 0
        with writing(partial_path(out)):
            self._journal = Journal(partial_path(out), anew=overwrite)
            self._require_unwritten(overwrite=overwrite)
            begin(self._journal, header, _image_digest(images))
            spent = self._go_on()
        self._cost = CostMeter(spent) if cost is None or spent else cost

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Id and reason of every image that could not be used."""
        return self._skipped + [(self._images.ids[image], why) for image, why in self._pending if isinstance(why, str)]

    @property
    def committed(self) -> bool:
        """Whether there is anything on disk that another run could go on from."""
        return len(self._journal) > 1

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
        self._pending.append((image, found))
        self._pending_bytes += sum(array.nbytes for array in found.values())
        if self._pending_bytes >= _COMMIT or len(self._pending) >= _IMAGES:
            self.commit()

    def skip(self, image: int, reason: str) -> None:
        """Record that an image could not be used."""
        self._pending.append((image, reason))

    def commit(self) -> None:
        """Put everything added so far safely into the partial file."""
        self._committing = True
        skipped, done = self.skipped, self.done + len(self._pending)
        found = [(image, maps) for image, maps in self._pending if not isinstance(maps, str)]
        rows = [(image, label, *array.shape) for image, maps in found for label, array in maps.items()]
        values = np.concatenate([self._tail, *(array.ravel() for _, maps in found for array in maps.values())])
        total = self._total + len(values) - len(self._tail)
        cut = len(values) - len(values) % _CHUNK
        chunks = [_packed(values[start : start + _CHUNK]) for start in range(0, cut, _CHUNK)]
        facts = {"done": done, "total": total, "skipped": skipped, "spent": self._cost.read(done)}
        parts = [np.asarray(rows, dtype=np.int32).tobytes(), zlib.compress(values[cut:].tobytes(), _LEVEL), *chunks]
        with writing(self._journal.path):
            self._journal.append(facts, parts)
        self.done, self._total, self._skipped, self._tail = done, total, skipped, values[cut:].copy()
        self._pending, self._pending_bytes = [], 0
        self._committing = False

    def finish(self) -> Path:
        """Commit, write the HDF5 file, stamp and publish it; returns the artefact's path.

        Raises:
            DatasetError: Every image was skipped. Nothing is left, so that the next run looks at all of them again.
        """
        self._require_an_image()
        self.commit()
        with new_file(self.out, self._header) as file:
            write_array(file, "images/id", np.asarray(self._images.ids, dtype=object))
            write_array(file, "images/height", np.asarray(self._images.heights, dtype=np.int32))
            write_array(file, "images/width", np.asarray(self._images.widths, dtype=np.int32))
            if self._skipped:
                for column, name in enumerate(("id", "reason")):
                    write_array(
                        file, f"skipped/{name}", np.asarray([row[column] for row in self._skipped], dtype=object)
                    )
            self._write_maps(file)
            stamp(file, self._header, self._cost.read(self.done))
        self._journal.forget()
        return self.out

    def __enter__(self) -> MapsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
            elif issubclass(kind, KeyboardInterrupt) and not self._committing:
                self.commit()
        finally:
            self._journal.__exit__(kind, error, trace)

    def _require_unwritten(self, *, overwrite: bool) -> None:
        """Refuse an output that another run has finished between the first check and the claim."""
        try:
            check_output(self.out, overwrite=overwrite)
        except InputError:
            self._journal.forget()
            raise

    def _require_an_image(self) -> None:
        skipped = self.skipped
        if skipped and len(skipped) == len(self._images.ids):
            self._journal.forget()
            raise DatasetError(
                f"none of the {len(skipped)} images could be used, so {self.out} is not made; "
                f"the first: {skipped[0][1]}"
            )

    def _go_on(self) -> dict[str, Any]:
        """Pick up what an earlier run has committed; returns what it has spent."""
        if len(self._journal) == 1:
            return {}
        facts, parts = self._journal.record(len(self._journal) - 1)
        self.done, self._total = facts["done"], facts["total"]
        self._skipped = [(name, why) for name, why in facts["skipped"]]
        self._tail = np.frombuffer(zlib.decompress(parts[1]), dtype=self._dtype)
        spent: dict[str, Any] = facts["spent"]
        return spent

    def _write_maps(self, file: h5py.File) -> None:
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
        for found, chunks in self._records():
            rows.append(found)
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

    def _records(self) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        for index in range(1, len(self._journal)):
            _, (rows, _, *chunks) = self._journal.record(index)
            yield np.frombuffer(rows, dtype=np.int32).reshape(-1, 4), chunks


def _packed(values: np.ndarray) -> bytes:
    """One chunk as HDF5's shuffle and gzip filters store it: first all first bytes, then all second ones; zlib."""
    return zlib.compress(values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes(), _LEVEL)


def _image_digest(images: Images) -> str:
    sizes = np.stack([images.heights, images.widths]).astype(np.int64).tobytes()
    return hashlib.sha256("\n".join(images.ids).encode() + sizes).hexdigest()
