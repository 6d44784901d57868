"""One data set, whatever its layout: class names, records, image tags, and ground truth where there is any."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts.header import Input
from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.shapes import Box, Point
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import DatasetOptions


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
    """

    id: str
    image: Path
    tags: tuple[int, ...] | None
    mask: Path | None = None
    scribbles: Path | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()


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
        strays: Complaints about weak labels of images that are not in the list, which are left out.
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
            "root": str(self.root),
            "split": self.split,
            "tag_source": self.tag_source,
            "tags_file": str(self.tags_file) if self.tags_file else None,
        }
        spec |= {kind: str(path) for kind, path in self.weak.items()}
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
            for mark in (*record.points, *record.boxes):
                digest.update(f"{mark[:-1]}\n".encode())
            if record.scribbles is not None and record.scribbles.exists():
                digest.update(record.scribbles.read_bytes())
        return Input("dataset", str(self.root), digest.hexdigest())


WEAK = ("scribbles", "points", "boxes")
"""The kinds of weak labels beside image tags."""

_SPEC = ("dataset", "root", "split", "tag_source", "tags_file", *WEAK)


def open_dataset(options: DatasetOptions) -> Dataset:
    """Open the data set that a stage's own options name.

    Raises:
        DatasetError: Something of the layout is missing or inconsistent; the message names file and cause.
    """
    return load_dataset({name: getattr(options, name) for name in _SPEC if hasattr(options, name)})


def folder_of(spec: Mapping[str, Any], root: Path | None = None) -> Path:
    """The folder of a data set, absolute.

    Args:
        spec: ``dataset`` and ``root``.
        root: Folder to use instead of the spec's.

    Raises:
        InputError: None is named.
        DatasetError: There is none. The synthetic set is made where it is missing.
    """
    if not (root or spec.get("root")):
        raise InputError(f"--root is required for --dataset {spec['dataset']}: the folder that holds the data set")
    place = Path(root or spec["root"]).resolve()
    if spec["dataset"] != "synthetic" and not place.is_dir():
        raise DatasetError(f"data set folder {place} does not exist; pass --root with the folder's place now")
    return place


def require_places(places: Mapping[str, Path]) -> None:
    """Refuse weak labels that are not where they are said to be.

    Args:
        places: ``scribbles``, ``points`` and ``boxes``, as far as there are any, to a folder or file.

    Raises:
        DatasetError: One does not exist.
    """
    for kind, path in places.items():
        if not path.exists():
            raise DatasetError(f"--{kind} {path} does not exist; pass the folder or file with the {kind}")


def load_dataset(
    spec: Mapping[str, Any], *, split: str | None = None, root: Path | None = None, fault: Fault = stop
) -> Dataset:
    """Open a data set from a stored ``spec()``, perhaps another split of it, perhaps in another place.

    Args:
        spec: ``dataset``, ``root``, ``split``, ``tag_source``, ``tags_file``, ``scribbles``, ``points``, ``boxes``.
        split: List to use instead of the spec's.
        root: Folder to use instead of the spec's, also for weak labels and the CSV of tags that lie inside it.
        fault: Told of everything wrong with single images, which are then left out. The default raises the first.

    Raises:
        DatasetError: As ``open_dataset``.
    """
    return _load(spec, split, root, _table_of(spec, root), _weak_places(spec, root), fault)


def _load(
    spec: Mapping[str, Any],
    split: str | None,
    root: Path | None,
    tags_file: Path | None,
    places: Mapping[str, Path],
    fault: Fault,
) -> Dataset:
    """As ``load_dataset``, with the CSV of tags and the weak labels at these places."""
    if not spec.get("dataset"):
        raise InputError("the artefact names no data set (it was imported without one); pass --dataset and --root")
    name, place = spec["dataset"], folder_of(spec, root)
    layout = importlib.import_module(f"pseudolabel.data.{name}")
    source = spec.get("tag_source") or "auto"
    if source == "weak" and not places:
        raise InputError(
            "--tag-source weak needs scribbles, points or boxes, and none are given; "
            "'pseudolabel data tags' takes them and writes a table for --tags-file"
        )
    if source == "weak" and tags_file:
        raise InputError("--tags-file is not read with --tag-source weak; leave one of them out")
    if name == "folder" and "scribbles" in places:
        layout.require_apart(place, places["scribbles"])
    # Without need of tags there is none of weak labels either: evaluation should not fail where they are gone.
    tags_only = "none" if source == "weak" else source
    dataset: Dataset = layout.load(place, split or spec["split"], tags_only, tags_file, fault)
    if not places or source == "none":
        return dataset
    if source == "weak":
        dataset = replace(dataset, records=tuple(replace(record, tags=None) for record in dataset.records))
    from pseudolabel.data.weak import attach  # which needs the records above

    return attach(dataset, places, fault)


def reopen_dataset(
    spec: Mapping[str, Any], *, split: str | None = None, root: Path | None = None, boxes: Path | None = None
) -> Dataset:
    """Open the data set that an artefact was made from, as ``load_dataset`` does, without what is gone since.

    A later stage may need neither weak labels nor tags. Where weak labels, or the CSV of tags, are no longer there, the
    images are without them, and without the tags that they gave or helped to give; ``gone`` says so to whoever does
    need them.

    Args:
        spec: As of ``load_dataset``.
        split: As of ``load_dataset``.
        root: As of ``load_dataset``.
        boxes: Boxes to use instead of the spec's, where they are now.

    Raises:
        DatasetError: As ``load_dataset``, but for what is gone.
    """
    weak, table = _weak_places(spec, root), _table_of(spec, root)
    if boxes is not None:
        weak["boxes"] = boxes.resolve()
    gone = {kind: path for kind, path in weak.items() if not path.exists()}
    if table is not None and not table.exists():
        gone["tags_file"] = table
    if not gone:
        return _load(spec, split, root, table, weak, stop)
    source = "none" if "tags_file" in gone or spec["tag_source"] == "weak" else spec["tag_source"]
    own = _load({**spec, "tag_source": source}, split, root, None if "tags_file" in gone else table, {}, stop)
    there = {kind: path for kind, path in weak.items() if kind not in gone}
    found = own
    if there and spec["tag_source"] != "none":
        from pseudolabel.data.weak import attach  # which needs the records above

        found = attach(own, there, stop)
    stated = {kind: how for kind, how in spec.get("simulated", {}).items() if kind in gone}
    return replace(
        found,
        # what is left of the weak labels would imply too few tags
        records=tuple(replace(one, tags=before.tags) for one, before in zip(found.records, own.records, strict=True)),
        tag_source=spec["tag_source"],
        tags_file=table,
        weak=weak,
        simulated={**stated, **found.simulated},
        gone=tuple(gone.values()),
    )


def _weak_places(spec: Mapping[str, Any], root: Path | None) -> dict[str, Path]:
    """Where weak labels are."""
    return {kind: _moved(Path(spec[kind]).resolve(), spec, root) for kind in WEAK if spec.get(kind)}


def _table_of(spec: Mapping[str, Any], root: Path | None) -> Path | None:
    """Where the CSV of tags is, if there is one."""
    return _moved(Path(spec["tags_file"]), spec, root) if spec.get("tags_file") else None


def _moved(path: Path, spec: Mapping[str, Any], root: Path | None) -> Path:
    """Where a path is now: what lies inside the data set's folder has moved with it."""
    if not (root and spec.get("root")):
        return path
    before = Path(spec["root"]).resolve()
    return root.resolve() / path.relative_to(before) if path.is_relative_to(before) else path
