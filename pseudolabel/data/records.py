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
from pseudolabel.data.decoding import AS_USUAL, Decoding
from pseudolabel.data.names import nfc
from pseudolabel.data.shapes import Box, Point
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular

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
        decoding: How the photograph's alpha and 16-bit samples are taken.
        frame: Height and width of the image that the boxes were drawn on, where their file states them.
    """

    id: str
    image: Path
    tags: tuple[int, ...] | None
    mask: Path | None = None
    scribbles: Path | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    decoding: Decoding = AS_USUAL
    frame: tuple[int, int] | None = None


@dataclass(frozen=True)
class MaskValues:
    """What the values in mask files mean, where the user says so.

    Attributes:
        named: Items ``VALUE=CLASS``. All other values but 0 and those ignored mean nothing; empty: values are indices.
        ignored: Values of pixels that nothing is said about; None: 255, unless it stands for a class.
    """

    named: tuple[str, ...] = ()
    ignored: tuple[int, ...] | None = None

    @property
    def stated(self) -> str:
        """In words: ``255=lesion; ignored: 254``."""
        ignored = () if self.ignored is None else (f"ignored: {', '.join(map(str, self.ignored))}",)
        return "; ".join((*((", ".join(self.named),) if self.named else ()), *ignored))


@dataclass(frozen=True)
class Dataset:
    """Records of one split, in list order.

    Attributes:
        name: ``voc``, ``coco``, ``folder`` or ``synthetic``; ``photographs`` where they are new ones.
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
        gone: Weak labels, and the CSV of tags, that an artefact names and that are no longer there.
        mask_folders: Where the layout keeps ground truth, if one file an image.
        mask_values: What the user says that the values in these files mean.
        decoding: How the photographs' alpha and 16-bit samples are taken, as their records say, too.
        notes: What is easily overlooked: images and labels that were left out and are no fault, conventions that labels
            were read by; one line each.
        files: Of new photographs, those below ``root`` that were named, with ``/``; none: all of them.
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
    gone: tuple[Path, ...] = ()
    mask_folders: tuple[Path, ...] = ()
    mask_values: MaskValues | None = None
    decoding: Decoding = AS_USUAL
    notes: tuple[str, ...] = field(default=(), repr=False)
    files: tuple[str, ...] = field(default=(), repr=False)

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
        wanted = [nfc(name) for name in ids]
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
        if self.classes == tuple(map(nfc, wanted)) or (len(self.classes) == 1 and not masks):
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
        if self.name == "photographs":  # which have nothing that names the classes
            spec["classes"] = list(self.classes)
            spec |= {"files": list(self.files)} if self.files else {}
        spec |= {kind: path.as_posix() for kind, path in self.weak.items()}
        if self.simulated:
            spec["simulated"] = {kind: dict(how) for kind, how in self.simulated.items()}
        if self.mask_values is not None:
            ignored = self.mask_values.ignored
            spec["mask_values"] = list(self.mask_values.named) or None
            spec["ignore_value"] = None if ignored is None else list(ignored)
        return spec | self.decoding.spec()

    def as_input(self) -> Input:
        """This data set as one input of an artefact.

        Its digest covers ids, tags, the image files' sizes, how they are decoded, and weak labels.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        if self.decoding != AS_USUAL:
            digest.update(f"{self.decoding}\n".encode())
        for record in self.records:
            size = record.image.stat().st_size if record.image.exists() else -1
            digest.update(f"{record.id}\t{record.tags}\t{size}\n".encode())
            for numbers in (*(point[:3] for point in record.points), *(box[:5] for box in record.boxes)):
                digest.update(f"{numbers}\n".encode())
            if record.scribbles is not None and record.scribbles.is_file():
                digest.update(read_regular(record.scribbles))
        return Input("dataset", self.root.as_posix(), digest.hexdigest())
