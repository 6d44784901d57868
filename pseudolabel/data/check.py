"""``data check``: everything that is wrong with a data set, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.data.decoding import Look
from pseudolabel.data.faults import Fault, passing_on
from pseudolabel.data.ground_truth import foreign_masks
from pseudolabel.data.images import look_at
from pseudolabel.data.instances import InstanceMasks
from pseudolabel.data.label_counts import LabelCounts, SeenMask
from pseudolabel.data.mask_files import MaskFiles
from pseudolabel.data.opening import load_dataset
from pseudolabel.data.records import IGNORE, Dataset, Record
from pseudolabel.data.survey import remarks_on
from pseudolabel.data.weak.labels import has_weak_labels, listed_ids, load_weak_labels
from pseudolabel.options import DataCheckOptions
from pseudolabel.runtime.formatting import either
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress


def check_dataset(options: DataCheckOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Read every file of a split and say what is wrong.

    Found are: unsafe and repeated ids, ids without an image, unreadable lists, annotations and tables, unknown classes,
    images without tags among tagged ones (where there are neither tags nor other labels at all, which is enough to
    predict masks, that is a warning), unreadable images and masks, masks of another size than their image, and
    labels outside the classes. Of weak labels: those of classes that the tags exclude, or of images that are not in the
    list, images without any label, scribbles of another size or outside the image, points outside it or on ignored
    pixels of the mask, and boxes that are empty, swapped or beyond the border. Tags that exclude a class of the mask
    are a warning: they may be meant to be imperfect.

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
    seen = LabelCounts(dataset)
    problems += foreign_masks(dataset.records)
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
    """What is wrong with the files of all images, in parallel; a warning of tags that contradict their masks.

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
    with (
        progress.track(len(dataset.records), "images") as advance,
        closing(ordered_map(check, dataset.records, workers=options.workers)) as results,
    ):
        for record, (found, excluded, mask, look) in zip(dataset.records, results, strict=True):
            problems += found
            looks += [(record.image, look)] if look is not None else []
            if mask is not None:
                seen.add(record, mask)
            if excluded:
                untrue.append(f"{record.id!r}: {', '.join(dataset.classes[label] for label in excluded)}")
            advance(1)
    if untrue:
        progress.warn(
            f"the masks of {len(untrue)} images have classes that their tags exclude (first: {untrue[0]}); tags "
            f"({dataset.tag_source}) and masks may be of different images, or their classes in another order"
        )
    for line in remarks_on(looks, dataset.decoding):
        progress.warn(line)
    return problems


def faults_of(
    record: Record, read_mask: Callable[[Record], np.ndarray], classes: Sequence[str]
) -> tuple[list[str], list[int], SeenMask | None, Look | None]:
    """What is wrong with the files of one image.

    Args:
        record: The image.
        read_mask: Its data set's reader of ground truth.
        classes: Class names, background first.

    Returns:
        One line for each fault; the class indices of the mask that the image's tags exclude, ascending; what its ground
        truth holds, None where it has none; what was noticed in the photograph, None where it cannot be read.
    """
    found: list[str] = []
    size: tuple[int, int] | None = None
    look: Look | None = None
    with passing_on(found.append):
        photograph, look = look_at(record.image, record.decoding)
        size = photograph.shape[0], photograph.shape[1]
    mask, seen = _mask_of(record, read_mask, size, found.append)
    if size is None:
        return found, [], seen, None
    if has_weak_labels(record):
        weak = load_weak_labels(record, size, classes, fault=found.append)
        ignored = [point for point in weak.points if mask is not None and mask[point.y, point.x] == IGNORE]
        found += [
            f"{point.where}: point ({point.x}, {point.y}) lies on pixels that the mask of the image ignores (255)"
            for point in ignored
        ]
    if mask is None or record.tags is None:
        return found, [], seen, look
    return found, np.setdiff1d(mask, (0, *record.tags, IGNORE)).tolist(), seen, look


def _mask_of(
    record: Record, read_mask: Callable[[Record], np.ndarray], size: tuple[int, int] | None, fault: Fault
) -> tuple[np.ndarray | None, SeenMask | None]:
    """The ground truth of one image, None where it cannot be used; and what it holds, None where there is none."""
    drawn = isinstance(read_mask, InstanceMasks)
    if record.mask is None and not drawn:
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
