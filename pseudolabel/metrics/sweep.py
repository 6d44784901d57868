"""Every threshold from 0.00 to 0.99 at once: one histogram of scores instead of a hundred label maps.

With one threshold for all classes, ``labels.assign`` gives a pixel its strongest class where that class's map reaches
the threshold, else background. So a pixel's label at every threshold follows from its strongest class and from the
number of thresholds that its score reaches, its *level*. A pixel at level n is foreground at the first n thresholds.
Without maps it has level 0.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.arange(100) / 100
"""float64 (T,), ascending."""

_REACHED = np.append(THRESHOLDS.astype(np.float32), np.float32(np.inf))  # as labels.assign compares them
_IGNORE = 255


def levels(scores: np.ndarray) -> np.ndarray:
    """How many of the thresholds each score reaches.

    Args:
        scores: float32, at least 0.

    Returns:
        int32 of the same shape, 1 to T.
    """
    count = len(THRESHOLDS)
    level = np.minimum(scores * np.float32(count), np.float32(count - 1)).astype(np.int32)
    level += _REACHED[level + 1] <= scores  # the product may be rounded to the wrong side of a threshold
    level -= _REACHED[level] > scores
    return np.asarray(level + 1)


def count_levels(truth: np.ndarray, labels: np.ndarray, maps: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of one image by class, role and level; those whose true label is 255 are left out.

    A pixel has two roles: it is of its true class, and it may be given to its strongest one, which is right if that is
    the same. Without maps the strongest class is background.

    Args:
        truth: uint8 (H, W), 255 = ignore.
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        classes: K.

    Returns:
        int64 (3, K, T + 1): pixels by strongest class where that is right, by true class, by strongest class.
    """
    strongest, level = np.zeros(truth.shape, dtype=np.int64), np.zeros(truth.shape, dtype=np.int32)
    if len(labels):
        strongest = labels[maps.argmax(axis=0)] if len(labels) > 1 else np.full(truth.shape, labels[0])
        level = levels(maps.max(axis=0))
    side = len(THRESHOLDS) + 1
    counted = truth != _IGNORE
    true_code = truth[counted] * np.int64(side) + level[counted]
    code = strongest[counted] * side + level[counted]
    found = [np.bincount(which, minlength=classes * side) for which in (code[code == true_code], true_code, code)]
    return np.stack(found).reshape(3, classes, side)


def curve_counts(histogram: np.ndarray) -> np.ndarray:
    """Class counts at every threshold.

    Args:
        histogram: (3, K, T + 1), the sum of ``count_levels`` over images.

    Returns:
        float64 (T, K, 3): hits, true and predicted pixels.
    """
    right, true, strongest = histogram.astype(np.float64)
    counts = np.empty((len(THRESHOLDS), len(true), 3))
    counts[..., 0] = _above(right).T
    counts[..., 1] = true.sum(axis=1)
    counts[..., 2] = _above(strongest).T
    # At threshold k all pixels up to level k are background.
    counts[:, 0, 0] = np.cumsum(true[0])[:-1]
    counts[:, 0, 2] = np.cumsum(strongest.sum(axis=0))[:-1]
    return counts


def _above(histogram: np.ndarray) -> np.ndarray:
    """Pixels above level k, at index k: (K, T) of (K, T + 1)."""
    return np.asarray(histogram.sum(axis=-1, keepdims=True) - np.cumsum(histogram, axis=-1))[:, :-1]
