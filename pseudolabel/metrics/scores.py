"""The scores that follow from pixel counts.

Means over classes are over those that occur in the ground truth. A class that does not occur has no score; pixels
wrongly given to it lower the scores of the classes that they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pseudolabel.metrics.confusion import boundary_counts, class_counts
from pseudolabel.options import IgnoredPolicy


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union.

    Args:
        counts: (..., K, 3), hits, true and predicted pixels.

    Returns:
        float64 (..., K); NaN where the class does not occur in the ground truth.
    """
    hits, true, predicted = np.moveaxis(counts, -1, 0)
    return _share(hits, true + predicted - hits, true)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def error_shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positives and false negatives as shares of the union, so that IoU and both add up to 1 for every class.

    Args:
        counts: (..., K, 3).

    Returns:
        Two float64 (..., K); NaN where the class does not occur in the ground truth.
    """
    hits, true, predicted = np.moveaxis(counts, -1, 0)
    union = true + predicted - hits
    return _share(predicted - hits, union, true), _share(true - hits, union, true)


def summarise(table: np.ndarray, names: Sequence[str], ignored: IgnoredPolicy, *, boundary: bool) -> dict[str, Any]:
    """All scores of a table, as JSON data.

    Precision is the share of the pixels given to a class that are of it; a class that no pixel was given to has none,
    and is left out of its mean. Recall is the share of a class's pixels that were given to it; its mean over classes is
    the mean accuracy. Pixel accuracy is the share of all pixels that got their class.

    Args:
        table: (K + 1, K + 1, 4).
        names: Of the K classes.
        ignored: What a predicted 255 counts as.
        boundary: Whether the table has boundary bands.

    Returns:
        ``miou``, ``precision``, ``recall``, ``mean_accuracy``, ``pixel_accuracy``, ``boundary_iou``,
        ``labelled_share`` (of the pixels whose true label is not 255, those whose predicted label is not), and by class
        name ``iou``, ``precision_by_class``, ``recall_by_class``, ``false_positives``, ``false_negatives``,
        ``boundary_iou_by_class``. Fractions in [0, 1], None where there is none.
    """
    counts = class_counts(table, ignored)
    hits, true, predicted = np.moveaxis(counts, -1, 0)
    false_positives, false_negatives = error_shares(counts)
    recall = _share(hits, true, true)
    by_class = {
        "iou": iou(counts),
        "precision_by_class": np.where(true > 0, _share(hits, predicted, predicted), np.nan),
        "recall_by_class": recall,
        "false_positives": false_positives,
        "false_negatives": false_negatives,
        "boundary_iou_by_class": iou(boundary_counts(table, ignored)) if boundary else np.full(len(names), np.nan),
    }
    pixels = table[:-1].sum(axis=(0, 2))
    means = {
        "miou": class_mean(by_class["iou"]),
        "precision": class_mean(by_class["precision_by_class"]),
        "recall": class_mean(recall),
        "pixel_accuracy": _share(hits.sum(), true.sum(), true.sum()),
        "mean_accuracy": class_mean(recall),
        "boundary_iou": class_mean(by_class["boundary_iou_by_class"]),
        "labelled_share": _share(pixels[:-1].sum(), pixels.sum(), pixels.sum()),
    }
    found: dict[str, Any] = {key: rounded(value) for key, value in means.items()}
    return found | {key: dict(zip(names, map(rounded, values), strict=True)) for key, values in by_class.items()}


def rounded(value: float | np.ndarray) -> float | None:
    """A fraction with six digits; None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def _share(part: np.ndarray, whole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``part / whole`` where ``known`` is positive, NaN elsewhere."""
    part = np.asarray(part, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.asarray(known) > 0))
