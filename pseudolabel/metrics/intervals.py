"""How far a score depends on which images happen to be in the set: the jackknife over images, with Student's t.

The score is computed again without each image. The spread of these scores gives its standard error (Tukey 1958; Efron
& Tibshirani 1993, chapter 11), and Student's distribution with N - 1 degrees of freedom how many of them an interval
takes. Nothing is random. Percentiles of a bootstrap, the usual form, cover too seldom where a class has few images: a
resample often lacks it (benchmarks/quality/intervals.py compares both, and BCa).
"""

from __future__ import annotations

import numpy as np

from pseudolabel.metrics.scores import class_mean, iou


class Jackknife:
    """Class counts of images, of which those alone are kept that are not zero: an image has few classes."""

    def __init__(self) -> None:
        self._total: np.ndarray | None = None
        self._images = 0
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []  # of each portion: (images, ..., classes) indices, counts

    def add(self, counts: np.ndarray) -> None:
        """Add images.

        Args:
            counts: float64 (B, ..., K, 3), the class counts of each: hits, true and predicted pixels.
        """
        where = np.stack(np.nonzero(counts.any(axis=-1)))
        self._kept.append((where + np.array([[self._images]] + [[0]] * (len(where) - 1)), counts[tuple(where)]))
        self._images += len(counts)
        total = counts.sum(axis=0)
        self._total = total if self._total is None else self._total + total

    def interval(self, share: float = 0.95) -> np.ndarray | None:
        """Interval of mIoU, within [0, 1].

        Args:
            share: Of such sets of images whose interval holds the score of all images that there could be.

        Returns:
            float64 (2, ...), low and high, NaN where there is no score; None for fewer than two images.
        """
        from scipy.stats import t

        if self._total is None or self._images < 2:
            return None
        left_out = self._left_out()
        factor = t.ppf((1 + share) / 2, self._images - 1)
        error = np.sqrt((self._images - 1) * left_out.var(axis=0))
        score = class_mean(iou(self._total))
        return np.asarray(np.clip([score - factor * error, score + factor * error], 0, 1))

    def _left_out(self) -> np.ndarray:
        """mIoU without each image: float64 (N, ...). Only the classes of the image change.

        Where a set has no class without an image, that image's is the score of all.
        """
        assert self._total is not None
        whole = iou(self._total)  # (..., K)
        known = ~np.isnan(whole)
        shape = (self._images, *self._total.shape[:-2])
        sums = np.broadcast_to(np.where(known, whole, 0).sum(axis=-1), shape).copy()
        classes = np.broadcast_to(known.sum(axis=-1), shape).copy()
        for where, counts in self._kept:
            index, rest = tuple(where[:-1]), tuple(where[1:])
            without = iou(self._total[rest] - counts)
            before = whole[rest]
            np.add.at(sums, index, np.nan_to_num(without) - np.nan_to_num(before))
            np.add.at(classes, index, (~np.isnan(without)).astype(int) - ~np.isnan(before))
        score = class_mean(whole)
        return np.asarray(np.divide(sums, classes, out=np.broadcast_to(score, shape).copy(), where=classes > 0))


def describe_interval(images: int) -> str | None:
    """The interval of a set of images in words that its score states; None where there is none."""
    return "95 %, jackknife over images, Student's t" if images > 1 else None
