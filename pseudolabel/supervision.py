"""What supervises each image of a training: its kinds of labels, in words, and what they cost to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from pseudolabel.data import Dataset, Record
from pseudolabel.data.dataset import WEAK
from pseudolabel.data.lists import read_ids
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import TrainScribbleOptions

COSTED = ("tags", "points", "scribbles", "boxes", "masks")
"""The kinds of labels in the order of ``--annotation-seconds``, whose defaults are averages over PASCAL VOC.

Tags, points, scribbles ("squiggles") and masks: Bearman et al. 2016, arXiv 1506.02106; boxes: Bellver et al. 2019,
arXiv 1905.05880. [paper] All of them contain the time for the tags.
"""


def masked_ids(options: TrainScribbleOptions, dataset: Dataset) -> frozenset[str]:
    """The ids of the images whose pixel masks are used in training.

    Raises:
        DatasetError: ``--mask-list`` cannot be read, or names an image that is not in the split.
    """
    known = [record.id for record in dataset.records]
    if options.supervision == "masks":
        return frozenset(known)
    if options.mask_list is None:
        return frozenset()
    wanted = read_ids(options.mask_list)
    strange = sorted(set(wanted) - set(known))
    if strange:
        raise DatasetError(
            f"{options.mask_list} names {len(strange)} images that are not in split {dataset.split} of {dataset.root} "
            f"(first: {strange[0]!r}); remove them from the list"
        )
    return frozenset(wanted)


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
            "label them, or leave them out of --split"
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


def annotation_hours(records: Iterable[Record], masked: Container[str], seconds: Sequence[float]) -> float:
    """How long it takes to draw the labels of some images.

    An image costs the time of its tags, and for each further kind what that kind takes longer. [ours]

    Args:
        records: The images.
        masked: Ids of images whose masks are used.
        seconds: An image's, in the order of ``COSTED``.
    """
    each = dict(zip(COSTED, seconds, strict=True))
    total = 0.0
    for record in records:
        total += each["tags"] + sum(each[kind] - each["tags"] for kind in kinds_of(record, masked))
    return total / 3600


def _words(kinds: Sequence[str]) -> str:
    if kinds in (("tags",), ("masks",)):
        return "tags only" if kinds == ("tags",) else "pixel masks"
    return " and ".join(", ".join(kinds).rsplit(", ", 1))
