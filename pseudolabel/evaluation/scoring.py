"""Scoring a set of images: what a worker process counts, and the sums that the scores follow from."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.data import Record
from pseudolabel.errors import DatasetError
from pseudolabel.evaluation.predictions import Prediction, label_maps
from pseudolabel.metrics.confusion import LabelRangeError, PixelCounter, class_counts
from pseudolabel.metrics.intervals import Jackknife
from pseudolabel.metrics.scores import class_mean, iou, rounded, summarise
from pseudolabel.options import EvaluateMasksOptions

Task = tuple[Record, Prediction]
NOT_TRAINED_ON = "not trained on"
"""What stands in the place of an image's kinds of labels where it was, for instance, held out."""


@dataclass(frozen=True)
class Counts:
    """What a worker has counted.

    Attributes:
        ids: Of the images that could be scored.
        table: float64 (V, K + 1, K + 1, 4), the sum over images, for V label maps an image.
        counts: float64 (B, V, K, 3), the class counts of each image.
        faults: What is wrong with the others.
    """

    ids: list[str]
    table: np.ndarray
    counts: np.ndarray
    faults: list[str]


def count_images(
    tasks: Sequence[Task],
    *,
    read_mask: Callable[[Record], np.ndarray],
    classes: int,
    options: EvaluateMasksOptions,
    filtered: bool,
) -> Counts:
    """Count the pixels of some images; runs in a worker process.

    Args:
        tasks: Record and prediction of each.
        read_mask: The data set's.
        classes: K.
        options: Policy and boundary distance.
        filtered: Whether to count tag-filtered label maps, too.
    """
    counter = PixelCounter(classes, boundary=options.boundary, ignored=options.ignored)
    shape = (1 + filtered, classes + 1, classes + 1)
    total = np.zeros((*shape, 4))
    ids, pixels, faults = [], [], []
    for record, prediction in tasks:
        try:
            truth = read_mask(record)
            maps = label_maps(prediction, record.tags if filtered else None)
            if maps[0].shape != truth.shape:
                sizes = [f"{width} x {height}" for height, width in (maps[0].shape, truth.shape)]
                faults.append(f"{_name(record, prediction)} is {sizes[0]} pixels, its ground truth {sizes[1]}")
                continue
            tables = [counter.table(truth, labels) for labels in maps]
        except DatasetError as error:
            faults.append(str(error))
        except LabelRangeError as error:
            faults.append(f"{_name(record, prediction)} holds {error}")
        else:
            ids.append(record.id)
            pixels += [table.sum(axis=-1) for table in tables]
            total += tables
    each = np.array(pixels).reshape(-1, *shape, 1)
    return Counts(ids, total, class_counts(each, options.ignored), faults)


class Scoring:
    """Sums over images, and one score of each.

    Args:
        options: Policy, how many of the worst images.
        classes: Names.
        label_maps: How many are scored of each image.
        kinds: Id to kinds of labels, of images that were trained on.
    """

    def __init__(
        self,
        options: EvaluateMasksOptions,
        classes: Sequence[str],
        *,
        label_maps: int,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.faults: list[str] = []
        self.images: list[tuple[float, str]] = []
        self._options = options
        self._classes = classes
        self._kinds = kinds or {}
        self._parts: dict[str, tuple[int, np.ndarray]] = {}
        self._tables = np.zeros((label_maps, len(classes) + 1, len(classes) + 1, 4))
        self._jackknife = Jackknife()

    def add(self, found: Counts) -> None:
        """Add what a worker has counted; blocks come in the images' order."""
        self.faults += found.faults
        if not found.ids:
            return
        self._tables += found.table
        self._jackknife.add(found.counts)
        scores = class_mean(iou(found.counts[:, 0]))
        self.images += zip(scores.tolist(), found.ids, strict=True)
        for name, counts in zip(found.ids, found.counts, strict=True):
            kind = self._kinds.get(name, NOT_TRAINED_ON)
            number, total = self._parts.get(kind, (0, np.zeros_like(counts)))
            self._parts[kind] = number + 1, total + counts

    @property
    def absent(self) -> list[int]:
        """Classes of which the ground truth has no pixel."""
        true = self._tables[0][:-1].sum(axis=(1, 2))
        return [label for label in range(1, len(self._classes)) if not true[label]]

    @property
    def predicts_nothing(self) -> bool:
        """Whether no mask holds a pixel of a class."""
        return not self._tables[0][:, 1:-1].any()

    @property
    def worst(self) -> list[tuple[float, str]]:
        """mIoU and id of the images with the lowest one."""
        return heapq.nsmallest(self._options.worst, (row for row in self.images if not math.isnan(row[0])))

    def summaries(self) -> list[dict[str, Any]]:
        """The scores of each label map."""
        interval = None if self._options.resamples == 0 else self._jackknife.interval()
        found = []
        for number, table in enumerate(self._tables):
            boundary = self._options.boundary is not None
            scores = summarise(table, self._classes, self._options.ignored, boundary=boundary)
            pair = None if interval is None else [rounded(bound) for bound in interval[:, number]]
            found.append(scores | {"interval": pair})
        return found

    def by_kind(self) -> dict[str, tuple[int, list[float | None]]]:
        """By kinds of labels, the commonest first: how many images have them, and the mIoU of each label map over them.

        Empty where no image was trained on.
        """
        if set(self._parts) <= {NOT_TRAINED_ON}:
            return {}
        ordered = sorted(self._parts.items(), key=lambda part: (-part[1][0], part[0]))
        return {
            kind: (number, [rounded(score) for score in class_mean(iou(counts))]) for kind, (number, counts) in ordered
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The datasets of a ``scores`` artefact; a second label map's in a group of its own."""
        found = {
            "images/id": np.array([name for _, name in self.images], dtype=object),
            "images/miou": np.array([score for score, _ in self.images]),
        }
        if self.by_kind():
            kinds = [self._kinds.get(name, NOT_TRAINED_ON) for _, name in self.images]
            found["images/supervision"] = np.array(kinds, dtype=object)
        for prefix, table in zip(("", "tag-filtered/"), self._tables, strict=False):  # there may be one only
            pixels = table[:-1].sum(axis=-1).astype(np.uint64)
            found[f"{prefix}confusion"] = pixels[:, :-1]
            found[f"{prefix}unlabelled"] = pixels[:, -1]
            found[f"{prefix}bands"] = table[:-1].astype(np.uint64)
        return found


def _name(record: Record, prediction: Prediction) -> str:
    return str(prediction) if isinstance(prediction, Path) else f"the mask of {record.id!r}"
