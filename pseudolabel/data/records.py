"""A data set as plain data: class names, and one record an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts.header import Input
from pseudolabel.data.shapes import Box, Point
from pseudolabel.errors import DatasetError

IGNORE = 255
"""The label of a pixel that nothing is said about."""

WEAK = ("scribbles", "points", "boxes")
"""The kinds of weak labels beside image tags."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image.

    Attributes:
        id: Its name, unique in the data set; may contain ``/`` but never leads out of a folder.
        image: Path of the photograph.
        tags: Class indices from 1 that occur, ascending; None where nobody said.
        mask: Path of the ground-truth mask file, if the layout keeps one a file.
        scribbles: Path of its scribbles, a PNG or XML file, which ``load_weak_labels`` reads.
        points: Its labelled points.
        boxes: Its objects' boxes, as ``load_weak_labels`` has yet to check them.
        frame: Height and width of the image that the boxes were drawn on, where their file states them.
    """

    id: str
    image: Path
    tags: tuple[int, ...] | None
    mask: Path | None = None
    scribbles: Path | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    frame: tuple[int, int] | None = None


@dataclass(frozen=True)
class Dataset:
    """Records of one split, in list order.

    Attributes:
        name: ``voc``, ``coco``, ``folder`` or ``synthetic``.
        root: Absolute folder.
        split: Name or path of the list.
        classes: Names, background first.
        records: The images.
        tag_source: Where the tags came from: ``xml``, ``csv``, ``folders``, ``instances``, ``masks``, or ``weak`` (the
            weak labels).
        tags_file: The CSV that they came from, if any.
        read_mask: Record to ground truth, uint8 (H, W), 255 = ignore. Raises DatasetError where there is none.
        weak: Folder or file of each kind of weak label: ``scribbles``, ``points``, ``boxes``.
        simulated: Of each kind that was simulated from masks, how.
        strays: Complaints about files of weak labels none of which is of an image in the list.
        notes: What is easily overlooked about the weak labels: how many are of images that are not in the list, and
            are left out, and which convention they were read by.
        gone: Weak labels, and the CSV of tags, that an artefact names and that are no longer there.
        mask_folders: Where the layout keeps ground truth, if one file an image.
    """

    name: str
    root: Path
    split: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    tag_source: str
    read_mask: Callable[[Record], np.ndarray] = field(repr=False)
    tags_file: Path | None = None
    weak: Mapping[str, Path] = field(default_factory=dict)
    simulated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strays: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    gone: tuple[Path, ...] = ()
    mask_folders: tuple[Path, ...] = ()

    @property
    def oracle(self) -> tuple[str, ...]:
        """Why this data set's tags and weak labels are not weak labels, as far as they are not."""
        tags = ("image tags read from pixel masks",) if self.tag_source == "masks" else ()
        return tags + tuple(f"{kind} simulated from pixel masks" for kind in self.simulated)

    def find(self, ids: Iterable[str], source: Path) -> list[Record]:
        """The records of the images that an artefact names, in its order.

        Args:
            ids: Names of images.
            source: The artefact's path, for the message.

        Raises:
            DatasetError: Some are not in this split.
        """
        known = {record.id: record for record in self.records}
        wanted = list(ids)
        absent = [name for name in wanted if name not in known]
        if absent:
            raise DatasetError(
                f"{len(absent)} images of {source} are not in split {self.split} of {self.root} "
                f"(first: {absent[0]!r}); pass --root with the folder that it was made from"
            )
        return [known[name] for name in wanted]

    @property
    def gone_note(self) -> str:
        """What is gone, to continue a message about what is missing with; empty where nothing is."""
        return "".join(f"; {path} is no longer there" for path in self.gone)

    def require_tags(self, otherwise: str) -> None:
        """Refuse images without tags.

        Args:
            otherwise: What to do about them, to end the message with.

        Raises:
            DatasetError: Some have none.
        """
        untagged = [record.id for record in self.records if record.tags is None]
        if untagged:
            first = f"(first: {untagged[0]}){self.gone_note}"
            raise DatasetError(f"{len(untagged)} images of {self.root} have no tags {first}; {otherwise}")

    def require_classes(self, wanted: tuple[str, ...], source: Path, *, masks: bool = False) -> None:
        """Refuse other classes than those that an artefact's indices mean.

        Args:
            wanted: The artefact's, background first.
            source: The artefact's path, for the message.
            masks: Whether ground truth is read, too. Where it is not, a data set whose classes are no longer known
                (its tags are gone) will do: nothing in it has an index.

        Raises:
            DatasetError: The classes differ, or their order.
        """
        if self.classes == wanted or (len(self.classes) == 1 and not masks):
            return
        pairs = enumerate(zip_longest(wanted, self.classes, fillvalue="none"))
        index, (was, now) = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
        mend = "pass --root with the folder that it was made from"
        if self.name == "folder":
            mend = f"name the former in {self.root / 'classes.txt'} ({', '.join(wanted[1:])}), or train anew with these"
        raise DatasetError(
            f"{source} was made with other classes than {self.root} has: class {index} was {was!r}, is {now!r}; {mend}"
        )

    def spec(self) -> dict[str, Any]:
        """What ``load_dataset`` needs to find this data set again, as JSON data."""
        spec: dict[str, Any] = {
            "dataset": self.name,
            "root": self.root.as_posix(),
            "split": self.split,
            "tag_source": self.tag_source,
            "tags_file": self.tags_file.as_posix() if self.tags_file else None,
        }
        spec |= {kind: path.as_posix() for kind, path in self.weak.items()}
        if self.simulated:
            spec["simulated"] = {kind: dict(how) for kind, how in self.simulated.items()}
        return spec

    def as_input(self) -> Input:
        """This data set as one input of an artefact.

        Its digest covers ids, tags, the image files' sizes, and weak labels.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for record in self.records:
            size = record.image.stat().st_size if record.image.exists() else -1
            digest.update(f"{record.id}\t{record.tags}\t{size}\n".encode())
            for numbers in (*(point[:3] for point in record.points), *(box[:5] for box in record.boxes)):
                digest.update(f"{numbers}\n".encode())
            if record.scribbles is not None and record.scribbles.exists():
                digest.update(record.scribbles.read_bytes())
        return Input("dataset", self.root.as_posix(), digest.hexdigest())
