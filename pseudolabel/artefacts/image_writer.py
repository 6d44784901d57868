"""Writing what is found of images one by one: into a journal first, and into HDF5 once all of it is there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import h5py
import numpy as np

from pseudolabel.artefacts.atomic import partial_path, writing
from pseudolabel.artefacts.header import CostMeter, Header, Input, made_differently
from pseudolabel.artefacts.journal import Journal
from pseudolabel.artefacts.maps import Images
from pseudolabel.artefacts.store import check_output, new_file, stamp, write_array
from pseudolabel.errors import DatasetError, InputError

_COMMIT = 1 << 22  # bytes gathered before a commit
_IMAGES = 256  # images gathered before a commit

Found = TypeVar("Found")


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


class ImageWriter(ABC, Generic[Found]):
    """Writes what is found of images one by one, and goes on where a killed run stopped.

    The caller adds images in an order that is the same in every run and skips the first ``done`` of them::

        with MapsWriter(out, header, images, dtype="float16", cost=cost) as writer:
            for index in order[writer.done:]:
                writer.add(index, {label: map})

    Leaving the block normally finishes the artefact, unless every image was skipped; leaving it by an error keeps the
    partial file, a ``Journal``, but for an ``InputError`` before anything was committed.
    """

    def __init__(
        self, out: Path, header: Header, images: Images, *, cost: CostMeter | None = None, overwrite: bool = False
    ) -> None:
        check_output(out, overwrite=overwrite)
        self.out = out
        self.done = 0
        self._header = header
        self._images = images
        self._pending: list[tuple[int, Found | str]] = []
        self._pending_bytes = 0
        self._committing = False
        self._skipped: list[tuple[str, str]] = []
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

    def skip(self, image: int, reason: str) -> None:
        """Record that an image could not be used."""
        self._pending.append((image, reason))

    def commit(self) -> None:
        """Put everything added so far safely into the partial file."""
        self._committing = True
        skipped, done = self.skipped, self.done + len(self._pending)
        facts, parts = self._pack([(image, found) for image, found in self._pending if not isinstance(found, str)])
        facts = {"done": done, **facts, "skipped": skipped, "spent": self._cost.read(done)}
        with writing(self._journal.path):
            self._journal.append(facts, parts)
        self.done, self._skipped = done, skipped
        self._resume(facts, parts)
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
            self._write(file)
            stamp(file, self._header, self._cost.read(self.done))
        self._journal.forget()
        return self.out

    def __enter__(self) -> Self:
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

    @abstractmethod
    def _pack(self, found: Sequence[tuple[int, Found]]) -> tuple[dict[str, Any], list[bytes]]:
        """What a commit writes of images: JSON facts and byte strings. Changes nothing."""

    @abstractmethod
    def _resume(self, facts: Mapping[str, Any], parts: Sequence[bytes]) -> None:
        """Stand where the writer stood after the commit that wrote these."""

    @abstractmethod
    def _write(self, file: h5py.File) -> None:
        """Write the datasets of the kind from the journal."""

    def _gather(self, image: int, found: Found, size: int) -> None:
        """Keep what was found of an image, ``size`` bytes, until enough is there for a commit."""
        self._pending.append((image, found))
        self._pending_bytes += size
        if self._pending_bytes >= _COMMIT or len(self._pending) >= _IMAGES:
            self.commit()

    def _records(self) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """What every commit has written, in order."""
        for index in range(1, len(self._journal)):
            facts, parts = self._journal.record(index)
            yield dict(facts), parts

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
        self.done, self._skipped = facts["done"], [(name, why) for name, why in facts["skipped"]]
        self._resume(facts, parts)
        spent: dict[str, Any] = facts["spent"]
        return spent


def _image_digest(images: Images) -> str:
    sizes = np.stack([images.heights, images.widths]).astype(np.int64).tobytes()
    return hashlib.sha256("\n".join(images.ids).encode() + sizes).hexdigest()
