"""Where the masks to be scored come from: PNGs, ``masks.h5``, or the soft labels that they were made of.

Soft labels of every class can be scored twice, with and without the classes that the image tags exclude. Masks that
were made of such soft labels lead to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pseudolabel.artefacts import Header, MapsReader, open_artefact, read_header
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data.images import read_label_png
from pseudolabel.data.lists import files_below
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import from_soft
from pseudolabel.labels.inputs import MapsTask

MASKS = "masks.h5"
Prediction = Path | np.ndarray | MapsTask
"""One image's masks as a worker process gets them: a PNG, a label map, or soft labels."""


@dataclass(frozen=True)
class Predictions:
    """The masks of a set of images.

    Attributes:
        path: The file or folder that is read.
        kind: ``png``, ``masks`` or ``soft-labels``.
        tag_filter: As in a header's protocol; ``unknown`` for others' masks.
        parents: Path to header of the artefacts behind them, the one named by the user first; none for PNGs.
        places: Id to the PNG, or to the index in the artefact; without skipped images.
        skipped: Id to reason, of images that an earlier stage could not use.
        reader: Of the artefact.
        unscored: How many masks the artefact holds beside these, of images that are not asked for.
    """

    path: Path
    kind: Literal["png", "masks", "soft-labels"]
    tag_filter: str
    parents: Mapping[Path, Header]
    places: Mapping[str, Path | int]
    skipped: Mapping[str, str]
    reader: MapsReader | None = None
    unscored: int = 0

    @property
    def header(self) -> Header | None:
        """Of the artefact that the user named."""
        return next(iter(self.parents.values()), None)

    @property
    def filterable(self) -> bool:
        """Whether there is both an unfiltered and a tag-filtered label map of each image."""
        return self.kind == "soft-labels" and self.tag_filter == "none"

    def read(self, name: str) -> Prediction:
        """One image's masks, as far as this process has to read them."""
        place = self.places[name]
        if isinstance(place, Path):
            return place
        assert self.reader is not None  # only PNGs have none
        if self.kind == "masks":
            return self.reader.labels(place)
        return MapsTask(self.reader.size(place), self.reader.maps(place))


@contextmanager
def open_predictions(path: Path) -> Iterator[Predictions]:
    """Find masks in a folder or file.

    Args:
        path: A folder of PNGs, ``masks.h5`` or the folder that holds it, or a ``soft-labels`` artefact.

    Raises:
        InputError: There is no such file or folder, or there are no masks in it.
        ArtefactError: A file is not what it should be.
    """
    if path.is_dir() and not (path / MASKS).exists():
        places: dict[str, Path | int] = dict(files_below(path, (".png",)))
        if not places:
            raise InputError(f"{path} holds neither {MASKS} nor PNG masks; pass the folder of export-masks or of PNGs")
        yield Predictions(path, "png", "unknown", {}, places, {})
        return
    file = path / MASKS if path.is_dir() else path
    with ExitStack() as stack:
        artefact = stack.enter_context(open_artefact(file, "masks", "soft-labels"))
        parents = {file: artefact.header}
        soft = _soft_labels(file, artefact.header)
        if soft is not None:
            artefact = stack.enter_context(open_artefact(soft, "soft-labels"))
            parents[soft] = artefact.header
        reader = MapsReader(artefact)
        yield Predictions(
            artefact.path,
            "masks" if artefact.header.kind == "masks" else "soft-labels",
            str(artefact.header.protocol.get("tag_filter", "unknown")),
            parents,
            {name: index for index, name in enumerate(reader.images.ids) if name not in reader.skipped},
            reader.skipped,
            reader,
        )


def label_maps(prediction: Prediction, tags: tuple[int, ...] | None) -> list[np.ndarray]:
    """The label maps of one image that are scored.

    Args:
        prediction: As ``Predictions.read`` gives it.
        tags: Of the image, to filter soft labels by; None: do not filter.

    Returns:
        One uint8 (H, W), and where tags are given a second one, in which only background and the tags occur.

    Raises:
        DatasetError: A PNG cannot be read or is no label map.
    """
    if isinstance(prediction, Path):
        return [read_label_png(prediction)]
    if isinstance(prediction, np.ndarray):
        return [prediction]
    labels, maps = at_size(prediction.maps, prediction.size)
    found = [from_soft(labels, maps)]
    if tags is not None:
        allowed = np.isin(labels, [0, *tags, IGNORE])
        kept = np.isin(labels[allowed], [0, *tags]).any()
        found.append(from_soft(labels[allowed], maps[allowed]) if kept else np.zeros_like(found[0]))
    return found


def _soft_labels(masks: Path, header: Header) -> Path | None:
    """The soft labels of every class that masks were made of, if they still lie where they did."""
    if header.kind != "masks" or header.protocol.get("tag_filter") != "none":
        return None
    for item in header.inputs:
        path = masks.parent / item.path
        if item.kind == "soft-labels" and path.is_file() and read_header(path, "soft-labels").digest == item.digest:
            return path
    return None
