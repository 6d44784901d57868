"""How far a score depends on which images happen to be in the set: the bootstrap over images, in one pass.

An ordinary bootstrap resample draws N of N images with replacement, so that each is in it about Poisson(1) times. The
Poisson bootstrap (Hanley & MacGibbon 2006; Chamandy et al. 2012) draws these numbers independently, image by image; so
it needs neither N nor the images again, only as many sums as there are resamples.

The interval is between percentiles of the resamples' scores. Where a class has few images, resamples of mIoU lie below
the score of the whole set more often than above, as those of the ordinary bootstrap do.
"""

from __future__ import annotations

import math

import numpy as np

from pseudolabel.metrics.scores import class_mean, iou

_LIMITS = np.cumsum([math.exp(-1) / math.factorial(times) for times in range(10)]).astype(np.float32)


class PoissonBootstrap:
    """Resamples of class counts.

    Args:
        resamples: R.
        seed: Of the weights. Image n gets the same weights however the images come in portions.
    """

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self._random = np.random.default_rng(seed)
        self._shape: tuple[int, ...] = ()
        self._sums: np.ndarray | None = None

    def add(self, counts: np.ndarray) -> None:
        """Add images, in their order.

        Args:
            counts: float64 (B, ..., K, 3), the class counts of each.
        """
        if not self.resamples:
            return
        flat = counts.reshape(len(counts), -1)
        if self._sums is None:
            self._shape = counts.shape[1:]
            self._sums = np.zeros((flat.shape[1], self.resamples))
        weights = poisson_weights(self._random, len(counts), self.resamples).astype(np.float64)
        # Not a matrix product: BLAS would wake threads, which wait for cores that the worker processes use.
        self._sums += np.einsum("bk,br->kr", flat, weights)

    def interval(self, share: float = 0.95) -> np.ndarray | None:
        """Percentile interval of mIoU.

        Args:
            share: Of the resamples inside.

        Returns:
            float64 (2, ...), low and high, NaN where no resample has a score; None without resamples or images.
        """
        if self._sums is None:
            return None
        scores = class_mean(iou(self._sums.T.reshape(self.resamples, *self._shape)))
        bounds = np.full((2, *scores.shape[1:]), np.nan)
        known = ~np.isnan(scores)  # of a few images, a resample may hold none
        tail = (1 - share) / 2
        for index in np.ndindex(scores.shape[1:]):
            of_one = (slice(None), *index)
            if known[of_one].any():
                bounds[of_one] = np.quantile(scores[of_one][known[of_one]], [tail, 1 - tail])
        return bounds


def poisson_weights(random: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """Poisson(1) numbers by inversion, ten times as fast as ``Generator.poisson``; the one in 10^8 above 10 is cut.

    Args:
        random: Source; an image's numbers follow those of the image before.
        images: B.
        resamples: R.

    Returns:
        uint8 (B, R).
    """
    uniform = random.random((images, resamples), dtype=np.float32)
    weights = np.zeros((images, resamples), dtype=np.uint8)
    for limit in _LIMITS:
        weights += uniform >= limit
    return weights
