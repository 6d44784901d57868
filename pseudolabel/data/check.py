"""``data check``: everything that is wrong with a data set, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.data.decoding import Look
from pseudolabel.data.faults import Fault, passing_on
from pseudolabel.data.ground_truth import foreign_masks
from pseudolabel.data.images import look_at
from pseudolabel.data.instances import InstanceMasks, shapeless_note
from pseudolabel.data.label_counts import LabelCounts, SeenMask
from pseudolabel.data.mask_files import MaskFiles
from pseudolabel.data.opening import load_dataset
from pseudolabel.data.records import IGNORE, Dataset, Record
from pseudolabel.data.survey import remarks_on
from pseudolabel.data.weak.labels import has_weak_labels, listed_ids, load_weak_labels
from pseudolabel.options import DataCheckOptions
from pseudolabel.runtime.formatting import counted, either
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress


def check_dataset(options: DataCheckOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Read every file of a split and say what is wrong.

    Found are: unsafe and repeated ids, ids without an image, unreadable lists, annotations and tables, unknown classes,
    images without tags among tagged ones (where there are neither tags nor other labels at all, which is enough to
    predict masks, that is a warning), unreadable images and masks, masks of another size than their image, and
    labels outside the classes. Of weak labels: those of classes that the tags exclude, files none of whose labels is
    of an image in the list, images without any label, labels that were drawn on an image of another size or are not in
    pixels, scribbles and points outside the image, and boxes that are empty, swapped or beyond the border. Warnings,
    for all of these may be meant: tags that exclude a class of the mask, points on pixels that the mask ignores, labels
    of images that are not in the list beside others, and annotations without a shape.

    Args:
        options: The data set and how many processes read it.
        progress: Where to report.

    Returns:
        ``root``, ``split``, ``classes`` (how many, without background), ``images``, the counts of
        ``LabelCounts.table``, ``tag_source``, ``oracle``, and ``problems``: one line each, naming file and cause.

    Raises:
        InputError: The split or the tag source does not exist.
    """
    problems: list[str] = []
    dataset: Dataset | None = None
    with passing_on(problems.append):
        dataset = load_dataset(options.model_dump(), fault=problems.append)
    if dataset is None:
        return {"root": str(options.root), "split": options.split, "images": 0, "problems": problems}
    problems += unlabelled(dataset, options, progress)
    for note in dataset.notes:
        progress.warn(note)
    if isinstance(dataset.read_mask, InstanceMasks) and (count := shapeless_note(dataset.read_mask, dataset.records)):
        progress.warn(count)
    seen = LabelCounts(dataset)
    counts = foreign_masks(dataset.records)
    if counts:  # which name them all; reading tags from them has named each on its own
        masks = {str(record.mask) for record in dataset.records if record.mask and record.mask.suffix.lower() != ".png"}
        problems = [line for line in problems if line.partition(" is a ")[0] not in masks]
    problems += counts
    problems += faults_in_files(dataset, options, progress, seen)
    problems += seen.problems()
    for warning in seen.warnings():
        progress.warn(warning)
    return {
        "root": str(dataset.root),
        "split": dataset.split,
        "classes": len(dataset.classes) - 1,
        **seen.table(),
        "tag_source": dataset.tag_source,
        "oracle": list(dataset.oracle),
        "problems": list(dict.fromkeys(problems)),  # a mask that tags are read from has been read twice
    }


def has_truth(record: Record, read_mask: Callable[[Record], np.ndarray]) -> bool:
    """Whether there is ground truth of an image, as far as can be told without reading it."""
    return read_mask.known(record) if isinstance(read_mask, InstanceMasks) else record.mask is not None


def unlabelled(dataset: Dataset, options: DataCheckOptions, progress: Progress) -> list[str]:
    """What is wrong with who has labels: a line for each fault, and a warning where nobody has any."""
    records, found = dataset.records, list[str]()
    tagged = sum(record.tags is not None for record in records)
    drawn = isinstance(dataset.read_mask, InstanceMasks)
    masked: frozenset[str] = frozenset()
    if options.mask_list is not None:
        with passing_on(found.append):
            masked = listed_ids(options.mask_list, dataset)
        unmasked = [record.id for record in records if record.id in masked and record.mask is None and not drawn]
        found += [f"{options.mask_list}: image {name!r} has no mask in {dataset.root}" for name in unmasked]
    if dataset.weak or masked:
        labelled = {record.id for record in records if record.tags is not None or has_weak_labels(record)} | masked
        bare = [record.id for record in records if record.id not in labelled]
        kinds = either(("tags", *dataset.weak))
        if labelled:
            found += [f"{dataset.root}: id {name!r} has no label: no {kinds}" for name in bare]
        else:  # most likely one cause, which need not be named for each
            found.append(f"{dataset.root}: none of the {len(bare)} images has a label: no {kinds}")
        found += dataset.strays
    elif 0 < tagged < len(records):
        untagged = [record.id for record in records if record.tags is None]
        found += [
            f"{dataset.root}: id {name!r} has no tags in {dataset.tag_source}, but others have" for name in untagged
        ]
    elif not tagged and not drawn and all(record.mask is None for record in records):
        progress.warn(
            f"no image of split {dataset.split} of {dataset.root} has tags, weak labels or a mask, so that nothing can "
            "be learnt from them; put a tags.csv there, or give --tags-file, --scribbles, --points or --boxes"
        )
    return found


def faults_in_files(dataset: Dataset, options: DataCheckOptions, progress: Progress, seen: LabelCounts) -> list[str]:
    """What is wrong with the files of all images, in parallel; warnings of tags and points at odds with the masks.

    Args:
        dataset: The images.
        options: How many processes read them.
        progress: Where to report.
        seen: Gets what the masks hold.
    """
    check = partial(faults_of, read_mask=dataset.read_mask, classes=dataset.classes)
    problems: list[str] = []
    untrue: list[str] = []
    looks: list[tuple[Path, Look]] = []
    ignored: list[str] = []
    with (
        progress.track(len(dataset.records), "images") as advance,
        closing(ordered_map(check, dataset.records, workers=options.workers)) as results,
    ):
        for record, report in zip(dataset.records, results, strict=True):
            problems += report.faults
            ignored += report.ignored
            looks += [(record.image, report.look)] if report.look is not None else []
            if report.mask is not None:
                seen.add(record, report.mask)
            if report.excluded:
                untrue.append(f"{record.id!r}: {', '.join(dataset.classes[label] for label in report.excluded)}")
            advance(1)
    if untrue:
        progress.warn(
            f"the masks of {len(untrue)} images have classes that their tags exclude (first: {untrue[0]}); tags "
            f"({dataset.tag_source}) and masks may be of different images, or their classes in another order"
        )
    for line in remarks_on(looks, dataset.decoding):
        progress.warn(line)
    if ignored:
        progress.warn(
            f"{counted(len(ignored), 'point')} on pixels that the masks ignore (255; first: {ignored[0]}); no score "
            "counts these pixels, and a training, which reads no masks, uses the points"
        )
    return problems


class FileReport(NamedTuple):
    """What was found in the files of one image.

    Attributes:
        faults: One line for each fault.
        excluded: Class indices of the mask that the image's tags exclude, ascending.
        ignored: Where the points are that lie on pixels that the mask ignores.
        mask: What its ground truth holds; None where it has none.
        look: What was noticed in the photograph; None where it cannot be read.
    """

    faults: list[str]
    excluded: tuple[int, ...] = ()
    ignored: Sequence[str] = ()
    mask: SeenMask | None = None
    look: Look | None = None


def faults_of(record: Record, read_mask: Callable[[Record], np.ndarray], classes: Sequence[str]) -> FileReport:
    """What is wrong with the files of one image.

    Args:
        record: The image.
        read_mask: Its data set's reader of ground truth.
        classes: Class names, background first.

    Returns:
        What was found in them.
    """
    found: list[str] = []
    size: tuple[int, int] | None = None
    look: Look | None = None
    with passing_on(found.append):
        photograph, look = look_at(record.image, record.decoding)
        size = photograph.shape[0], photograph.shape[1]
    mask, seen = _mask_of(record, read_mask, size, found.append)
    if size is None:
        return FileReport(found, mask=seen)
    ignored: list[str] = []
    if has_weak_labels(record):
        weak = load_weak_labels(record, size, classes, fault=found.append)
        ignored = [
            f"{point.where}: point ({point.x}, {point.y})"
            for point in weak.points
            if mask is not None and mask[point.y, point.x] == IGNORE
        ]
    if mask is None or record.tags is None:
        return FileReport(found, (), ignored, seen, look)
    excluded = np.setdiff1d(mask, (0, *record.tags, IGNORE)).tolist()
    return FileReport(found, tuple(excluded), ignored, seen, look)


def _mask_of(
    record: Record, read_mask: Callable[[Record], np.ndarray], size: tuple[int, int] | None, fault: Fault
) -> tuple[np.ndarray | None, SeenMask | None]:
    """The ground truth of one image, None where it cannot be used; and what it holds, None where there is none."""
    if not has_truth(record, read_mask):
        return None, None
    if record.mask is not None and record.mask.suffix.lower() != ".png":  # foreign_masks counts them
        return None, None
    values: np.ndarray | None = None
    mask: np.ndarray | None = None
    with passing_on(fault):
        values = read_mask.values(record) if isinstance(read_mask, MaskFiles) else read_mask(record)
        mask = read_mask.labels(record, values) if isinstance(read_mask, MaskFiles) else values
    if values is None:
        return None, SeenMask((), "unreadable")
    present = tuple(np.bincount(values.ravel(), minlength=256).nonzero()[0].tolist())
    if mask is None:
        return None, SeenMask(present, "a value without a meaning")
    if size is not None and mask.shape != size:
        name = f"{record.mask}" if record.mask else f"the ground truth of {record.image}"
        fault(f"{name} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
        return None, SeenMask(present, "another size than the image")
    return mask, SeenMask(present)
