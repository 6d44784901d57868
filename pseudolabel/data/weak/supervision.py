"""What supervises each image of a training: its kinds of labels, in words, and what they cost to draw."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudolabel.artefacts import Header, open_artefact, read_input
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.data import Dataset, Record
from pseudolabel.data.records import WEAK
from pseudolabel.data.weak.labels import listed_ids
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import TrainScribbleOptions
from pseudolabel.options.fields import as_word, default_of

COSTED = ("tags", "points", "scribbles", "boxes", "masks")
"""The kinds of labels in the order of ``--annotation-seconds``, whose defaults are averages over PASCAL VOC.

Tags, points, scribbles ("squiggles") and masks: Bearman et al. 2016, arXiv 1506.02106; boxes: Bellver et al. 2019,
arXiv 1905.05880. [paper] All of them contain the time for the tags. docs/stages/train-scribble.md has the sums.
"""

ANNOTATION = ("annotation_hours", "annotation_averages")
"""Under which names a protocol states what the labels that were trained on cost to draw, and from which averages."""


def masked_ids(options: TrainScribbleOptions, dataset: Dataset) -> frozenset[str]:
    """The ids of the images whose pixel masks are used in training.

    Raises:
        DatasetError: ``--mask-list`` cannot be read, or names an image that is not in the split.
    """
    if options.supervision == "masks":
        return frozenset(record.id for record in dataset.records)
    return frozenset() if options.mask_list is None else listed_ids(options.mask_list, dataset)


def kinds_of(record: Record, masked: Container[str]) -> tuple[str, ...]:
    """What says something about an image; a mask says everything, and tags are named where there is nothing else.

    Args:
        record: The image.
        masked: Ids of images whose masks are used.

    Returns:
        Some of ``COSTED``; none where nobody said anything.
    """
    if record.id in masked:
        return ("masks",)
    weak = tuple(kind for kind in WEAK if getattr(record, kind))
    return weak or (("tags",) if record.tags is not None else ())


def require_labels(dataset: Dataset, masked: Container[str]) -> None:
    """Refuse a data set in which an image says nothing at all, or in which no pixel is labelled.

    Raises:
        DatasetError: An image has no label.
        InputError: All images have tags only.
    """
    found = {record.id: kinds_of(record, masked) for record in dataset.records}
    bare = [name for name, kinds in found.items() if not kinds]
    if bare:
        given = ", ".join(["no tags", *(f"no {kind}" for kind in dataset.weak)])
        raise DatasetError(
            f"{len(bare)} images of {dataset.root} have no label at all (first: {bare[0]}): {given}; "
            "label them (--scribbles, --points, --boxes, tags, --mask-list), or leave them out of --split"
        )
    if all(kinds == ("tags",) for kinds in found.values()):
        raise InputError(
            f"no image of split {dataset.split} of {dataset.root} has a labelled pixel; "
            "pass --scribbles, --points or --boxes, or --supervision masks, or train on tags with train-cosa"
        )


def count_kinds(records: Iterable[Record], masked: Container[str]) -> dict[str, int]:
    """How many images have which labels, by words such as ``scribbles and boxes``, the commonest first."""
    counts = Counter(kinds_of(record, masked) for record in records)
    return {_words(kinds): count for kinds, count in counts.most_common()}


def describe_supervision(counts: Mapping[str, int]) -> str:
    """The counts of ``count_kinds`` as one phrase."""
    parts = ", ".join(f"{words} {count}" for words, count in counts.items())
    return f"{sum(counts.values())} images ({parts})"


def supervision_arrays(
    records: Iterable[Record], masked: Container[str], seconds: Sequence[float]
) -> dict[str, np.ndarray]:
    """What supervises each image of a training, as datasets of its checkpoint.

    An image costs the time of its tags, and for each further kind what that kind takes longer; without any label,
    nothing. [ours]

    Args:
        records: The images.
        masked: Ids of images whose masks are used.
        seconds: An image's, in the order of ``COSTED``.

    Returns:
        ``supervision/id``, ``supervision/kind`` (in words) and ``supervision/seconds``, float64.
    """
    each = dict(zip(COSTED, seconds, strict=True))
    ids, words, cost = [], [], []
    for record in records:
        kinds = kinds_of(record, masked)
        ids.append(record.id)
        words.append(_words(kinds))
        cost.append(each["tags"] + sum(each[kind] - each["tags"] for kind in kinds) if kinds else 0.0)
    return {
        "supervision/id": np.array(ids, dtype=object),
        "supervision/kind": np.array(words, dtype=object),
        "supervision/seconds": np.array(cost, dtype=np.float64),
    }


def annotation_hours(arrays: Mapping[str, np.ndarray]) -> float:
    """How long it takes to draw the labels of all images of ``supervision_arrays``."""
    return round(float(arrays["supervision/seconds"].sum()) / 3600, 3)


def describe_averages(seconds: Sequence[float]) -> str:
    """What the cost of labels was computed from, as a score has to state it."""
    published = tuple(seconds) == default_of(TrainScribbleOptions, "annotation_seconds")
    each = ", ".join(f"{kind} {as_word(value)}" for kind, value in zip(COSTED, seconds, strict=True))
    return f"{each} s an image ({'published averages of PASCAL VOC' if published else 'as given'})"


@dataclass(frozen=True)
class Supervision:
    """What supervised the images that a network was trained on.

    Attributes:
        path: The checkpoint that says so.
        header: Its header.
        kinds: Id to kinds of labels, in words.
        seconds: Kinds of labels, in words, to what those of an image cost to draw.
    """

    path: Path
    header: Header
    kinds: Mapping[str, str]
    seconds: Mapping[str, float]


def find_supervision(parents: Mapping[Path, Header]) -> Supervision | None:
    """The nearest checkpoint among what masks were made from that says what supervised its images.

    Args:
        parents: Path to header of the masks, and of what is known to be behind them.

    Returns:
        None where there is none, or none any more.
    """
    for path, header in behind(parents):
        if header.kind == "checkpoint" and (found := _read_supervision(path)) is not None:
            return found
    return None


def behind(parents: Mapping[Path, Header]) -> Iterator[tuple[Path, Header]]:
    """What masks were made from, as far as it still lies where it did, the nearest first; the masks are among it.

    What a network learnt from comes before the checkpoint that its weights started from.

    Args:
        parents: Path to header of the masks, and of what is known to be behind them.
    """
    waiting = list(parents.items())
    started_from: list[tuple[Path, Header]] = []
    seen: set[Path] = set()  # places: equal data of another making have equal digests
    while waiting or started_from:
        path, header = (waiting or started_from).pop(0)
        yield path, header
        for item in header.inputs:
            place = Path(os.path.normpath(path.parent / item.path))
            if item.kind not in REQUIRED or place in seen:
                continue
            seen.add(place)
            parent = read_input(place, item.digest)
            if parent is not None:
                initial = parent.kind == header.kind == "checkpoint"
                (started_from if initial else waiting).append((place, parent))


def _read_supervision(path: Path) -> Supervision | None:
    with open_artefact(path, "checkpoint") as artefact:
        if "supervision" not in artefact.file:
            return None
        group = artefact.file["supervision"]
        ids, words = (group[name].asstr()[:].tolist() for name in ("id", "kind"))
        seconds = dict(zip(words, group["seconds"][:].tolist(), strict=True))
        return Supervision(path, artefact.header, dict(zip(ids, words, strict=True)), seconds)


def _words(kinds: Sequence[str]) -> str:
    alone = {(): "no labels", ("tags",): "tags only", ("masks",): "pixel masks"}
    if tuple(kinds) in alone:
        return alone[tuple(kinds)]
    return " and ".join(", ".join(kinds).rsplit(", ", 1))
