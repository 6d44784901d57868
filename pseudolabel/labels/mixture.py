"""Thresholds from the values of activation maps alone: a one-dimensional Gaussian mixture, fitted to a histogram.

CoSA (arXiv 2402.17891) separates background from foreground by a mixture fitted to nu = max_c M_c. Its paper states the
idea: two components, and the threshold that best divides the values between them; the exact objective here is ours:

    xi* maximises  sum_{nu >= xi} log(pi_f N(nu; mu_f, s_f)) + sum_{nu < xi} log(pi_b N(nu; mu_b, s_b))

Its released code fits three components, started at minimum, median and maximum, and takes the highest value of the
lowest one and the lowest value of the highest one as its two thresholds.

EM runs on the counts of a histogram, every value standing at the middle of its bin, so that an iteration costs the same
for any number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 256
_ITERATIONS = 1000
_TOLERANCE = 1e-7  # nats a value by which an iteration must still raise the mean log likelihood
_RELEASED_ITERATIONS, _RELEASED_TOLERANCE = 100, 1e-3  # scikit-learn's, which CoSA's released code leaves as they are
_LEAST = 1e-100  # values that a component holds at least, so that its logarithm exists
_SURE = 0.9  # posterior from which on a value is surely of one component [ours]


class UnfitError(ValueError):
    """A histogram in which there is nothing to separate."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values in (minimum, 1].

    Attributes:
        edges: float64 (B + 1,), equidistant, from the minimum to 1.
        counts: int64 (B,).
    """

    edges: np.ndarray
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """float64 (B,), the middles of the bins."""
        return np.asarray(self.edges[1:] + self.edges[:-1]) / 2


@dataclass(frozen=True)
class Mixture:
    """Gaussian components in ascending order of their means, each array float64 (components,)."""

    weight: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def log_joint(self, values: np.ndarray) -> np.ndarray:
        """log(pi_k N(value; mu_k, s_k)): float64 (components, N) of values (N,)."""
        scaled = (values - self.mean[:, None]) / self.deviation[:, None]
        scale = np.log(self.weight) - np.log(self.deviation) - 0.5 * np.log(2 * np.pi)
        return np.asarray(scale[:, None] - 0.5 * scaled**2)

    def posterior(self, values: np.ndarray) -> np.ndarray:
        """The probability of each component given a value: float64 (components, N), summing to 1 over components."""
        joint = self.log_joint(values)
        return np.asarray(np.exp(joint - np.logaddexp.reduce(joint, axis=0)))


@dataclass(frozen=True)
class Cut:
    """Thresholds of one histogram.

    Attributes:
        value: At or above it a value is foreground.
        low: Below it a value is surely background.
        high: At or above it a value is surely foreground.
        mixture: What they were read from.
    """

    value: float
    low: float
    high: float
    mixture: Mixture


def count_values(values: np.ndarray, minimum: float, bins: int = BINS) -> np.ndarray:
    """Count values in equal bins of (minimum, 1]; those up to the minimum are dropped.

    Args:
        values: float (N,) in [0, 1].
        minimum: In [0, 1).
        bins: B.

    Returns:
        int64 (B,).
    """
    kept = values[values > minimum].astype(np.float64)
    index = ((kept - minimum) * (bins / (1 - minimum))).astype(np.intp)
    return np.bincount(np.minimum(index, bins - 1), minlength=bins)


def as_histogram(counts: np.ndarray, minimum: float) -> Histogram:
    """Counts of ``count_values`` with their edges."""
    return Histogram(np.linspace(minimum, 1, len(counts) + 1), counts)


def fit_mixture(histogram: Histogram, means: np.ndarray) -> Mixture:
    """Fit Gaussian components by expectation maximisation.

    Components start with equal weights and the deviation of all values.

    Args:
        histogram: The values.
        means: float64 (components,), where to start, different from each other.

    Raises:
        UnfitError: The values lie in fewer bins than there are components.
    """
    return refine_mixture(histogram, _first_mixture(histogram, means), _ITERATIONS)


def refine_mixture(histogram: Histogram, mixture: Mixture, iterations: int) -> Mixture:
    """Improve a mixture by expectation maximisation; no component gets narrower than a bin, which is all that is known.

    Args:
        histogram: The values, at least one.
        mixture: Where to start.
        iterations: At most so many; fewer where it has converged.
    """
    before = -np.inf
    for _ in range(iterations):
        after, following = _iterated(histogram, mixture)
        if after - before < _TOLERANCE:
            break
        before, mixture = after, following
    order = np.argsort(mixture.mean)
    return Mixture(mixture.weight[order], mixture.mean[order], mixture.deviation[order])


def _iterated(histogram: Histogram, mixture: Mixture) -> tuple[float, Mixture]:
    """The mean log likelihood of a mixture, and the mixture after one step of expectation maximisation."""
    counts, values = histogram.counts.astype(np.float64), histogram.centres
    total, narrowest = counts.sum(), histogram.edges[1] - histogram.edges[0]
    joint = mixture.log_joint(values)
    evidence = np.logaddexp.reduce(joint, axis=0)
    share = np.exp(joint - evidence) * counts
    weight = np.maximum(share.sum(axis=1), _LEAST)
    mean = share @ values / weight
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1) / weight
    following = Mixture(weight / total, mean, np.maximum(np.sqrt(variance), narrowest))
    return float(counts @ evidence) / total, following


def cut_by_two(histogram: Histogram, *, start: Mixture | None = None, iterations: int | None = None) -> Cut:
    """The threshold xi* between two components; low and high where the posterior of the nearer component falls to 0.9.

    The components start at the means of the values below and above the mean of all. Among equally good thresholds, as
    in a gap between two heaps, the middle one is taken. low and high are ours: going away from xi*, the first value
    whose posterior is at least 0.9; the component's own mean where it never is.

    Args:
        histogram: The values.
        start: The mixture of a histogram much like this one, to go on from instead.
        iterations: Of the fit, at most. None: until it has converged.

    Raises:
        UnfitError: All values lie in one bin, or on one side of xi*.
    """
    _require_filled(histogram, 2)
    counts, values = histogram.counts.astype(np.float64), histogram.centres
    if start is None:
        upper = values >= counts @ values / counts.sum()
        means = [np.average(values[part], weights=counts[part]) for part in (~upper, upper)]
        start = _first_mixture(histogram, np.array(means))
    mixture = refine_mixture(histogram, start, iterations or _ITERATIONS)
    background, foreground = mixture.log_joint(values) * counts
    gain = np.concatenate([[0.0], np.cumsum(background - foreground)])  # of xi at each edge over xi at the first
    best = np.flatnonzero(gain == gain.max())
    if counts[: best[0]].sum() in (0, counts.sum()):  # edges that are equally good have no value between them
        raise UnfitError(f"{int(counts.sum())} values in one heap")
    value = float(histogram.edges[best].mean())
    posterior = mixture.posterior(values)
    below = values[(values < value) & (posterior[0] >= _SURE)]
    above = values[(values >= value) & (posterior[1] >= _SURE)]
    low = float(below.max()) if len(below) else min(float(mixture.mean[0]), value)
    high = float(above.min()) if len(above) else max(float(mixture.mean[1]), value)
    return Cut(value, low, high, mixture)


def cut_by_three(histogram: Histogram) -> Cut:
    """CoSA's released rule: low is the highest value of the lowest component, high the lowest of the highest.

    As scikit-learn fits it there [code: three-components]: components at the minimum, median and maximum, with equal
    weights and a deviation of 1, each time anew; it stops after the step whose gain in mean log likelihood is below
    1e-3, long before it has converged. A value is of the component with the largest posterior. The threshold between is
    their middle, which is ours. Where a component is so broad that low would be above high, both are that middle.

    Args:
        histogram: The values.

    Raises:
        UnfitError: The values lie in fewer than three bins.
    """
    _require_filled(histogram, 3)
    counts, values = histogram.counts, histogram.centres
    filled = np.flatnonzero(counts)
    median = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
    inner = np.clip(median, filled[1], filled[-2])  # most values may be equal to the first or the last
    mixture = Mixture(np.full(3, 1 / 3), values[[filled[0], inner, filled[-1]]], np.ones(3))
    before = -np.inf
    for _ in range(_RELEASED_ITERATIONS):
        after, mixture = _iterated(histogram, mixture)
        if abs(after - before) < _RELEASED_TOLERANCE:
            break
        before = after
    member = mixture.posterior(values[filled]).argmax(axis=0)
    lowest, highest = values[filled][member == 0], values[filled][member == 2]
    low = float(lowest.max()) if len(lowest) else float(values[filled[0]])
    high = float(highest.min()) if len(highest) else float(values[filled[-1]])
    middle = (low + high) / 2
    return Cut(middle, min(low, middle), max(high, middle), mixture)


def _first_mixture(histogram: Histogram, means: np.ndarray) -> Mixture:
    """Components at some means, with equal weights and the deviation of all values."""
    count = len(means)
    _require_filled(histogram, count)
    spread = float(np.sqrt(np.cov(histogram.centres, fweights=histogram.counts, ddof=0)))
    deviation = max(spread, histogram.edges[1] - histogram.edges[0])
    return Mixture(np.full(count, 1 / count), np.sort(means), np.full(count, deviation))


def _require_filled(histogram: Histogram, least: int) -> None:
    counts = histogram.counts
    filled = int((counts > 0).sum())
    if filled < least:
        raise UnfitError(f"{int(counts.sum())} values in {filled} of {len(counts)} bins")
