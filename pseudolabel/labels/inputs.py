"""What offline stages read: maps with their thresholds, photographs, others' files; and the loop that writes images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pseudolabel.artefacts import Header, Images, MapsReader, MapsWriter, RegionsWriter, open_artefact
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import Thresholds, matching_thresholds
from pseudolabel.runtime.progress import Progress

Result = TypeVar("Result")
Found = TypeVar("Found")


@dataclass(frozen=True)
class MapsTask:
    """One image as a worker process gets it.

    Attributes:
        size: Height and width, pixels.
        maps: Class index to stored map.
        skipped: Why an earlier stage could not use it, if so.
    """

    size: tuple[int, int]
    maps: Mapping[int, np.ndarray]
    skipped: str | None = None


@dataclass(frozen=True)
class MapsInput:
    """An open artefact of maps.

    Attributes:
        reader: Its maps.
        thresholds: What cuts them into labels; None unless they are CAMs.
        parents: Path to header of the artefact and of its thresholds.
    """

    reader: MapsReader
    thresholds: Thresholds | None
    parents: Mapping[Path, Header]

    @property
    def header(self) -> Header:
        """The header of the maps."""
        return self.reader.header

    @property
    def images(self) -> Images:
        """The images that the maps are of."""
        return self.reader.images

    def task(self, image: int) -> MapsTask:
        """All that a worker needs to know of one image's maps."""
        reason = self.reader.skipped.get(self.images.ids[image])
        return MapsTask(self.reader.size(image), self.reader.maps(image), reason)


@contextmanager
def open_maps(path: Path, threshold: Path | None, *kinds: str) -> Iterator[MapsInput]:
    """Open maps of any of these kinds; CAMs together with their thresholds.

    Args:
        path: The artefact of maps.
        threshold: The ``thresholds`` artefact, where the maps are CAMs.
        *kinds: What the caller can use.

    Raises:
        ArtefactError: Either file is not what it should be.
        InputError: CAMs come without thresholds or with those of other classes, or other maps come with any.
    """
    with open_artefact(path, *kinds) as artefact:
        parents = {path: artefact.header}
        thresholds = None
        if artefact.header.kind == "cams":
            thresholds, parent = matching_thresholds(threshold, path, artefact.header)
            if threshold is not None:
                parents[threshold] = parent
        elif threshold is not None:
            raise InputError(f"{path} holds {artefact.header.kind}, which --threshold cannot cut; leave it out")
        yield MapsInput(MapsReader(artefact), thresholds, parents)


def write_images(
    writer: MapsWriter | RegionsWriter, results: Generator[Any, None, None], total: int, progress: Progress
) -> None:
    """Write what was made of every image that an interrupted run has not written, and close ``results`` at any end.

    Args:
        writer: Of the new artefact.
        results: Of the images from ``writer.done`` on, in order: what the writer takes, or a reason.
        total: How many images there are.
        progress: Where to report.
    """
    todo = range(writer.done, total)
    with progress.track(total, "images", done=writer.done) as advance, closing(results):
        for index, found in zip(todo, results, strict=True):
            if isinstance(found, str):
                writer.skip(index, found)
            else:
                writer.add(index, found)
            advance(1)


def each(
    results: Generator[Result, None, None], of: Callable[[Result], Iterable[Found]]
) -> Generator[Found, None, None]:
    """What ``of`` makes of each result, one after the other; closing it closes ``results``."""
    with closing(results):
        for result in results:
            yield from of(result)
