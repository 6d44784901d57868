"""The Gaussian mixture on a histogram against scikit-learn's on the samples, its invariances, and its thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from pseudolabel.labels.mixture import (
    Histogram,
    Mixture,
    UnfitError,
    as_histogram,
    count_values,
    cut_by_three,
    cut_by_two,
    fit_mixture,
    refine_mixture,
)


def heaps(*shapes: tuple[float, float, int]) -> np.ndarray:
    """Values around some centres with some deviation, so many of each."""
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(*shape) for shape in shapes])
    return values[(values > 0.05) & (values <= 1)]


def two_heaps() -> np.ndarray:
    return heaps((0.25, 0.06, 14_000), (0.7, 0.1, 6_000))


def three_heaps() -> np.ndarray:
    return heaps((0.2, 0.03, 4000), (0.5, 0.04, 2000), (0.8, 0.03, 3000))


def histogram(values: np.ndarray, minimum: float = 0.05, bins: int = 256) -> Histogram:
    return as_histogram(count_values(values, minimum, bins), minimum)


def test_values_up_to_the_minimum_are_dropped_and_one_is_kept() -> None:
    assert count_values(np.array([0.0, 0.2, 0.2001, 0.39, 0.41, 1.0]), 0.2, bins=4).tolist() == [2, 1, 0, 1]
    assert as_histogram(np.zeros(4, dtype=int), 0.2).edges == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize(
    ("values", "start"), [(two_heaps(), [0.2, 0.8]), (two_heaps(), [0.45, 0.5]), (three_heaps(), [0.1, 0.4, 0.9])]
)
def test_em_on_counts_is_em_on_samples(values: np.ndarray, start: list[float]) -> None:
    found = fit_mixture(histogram(values), np.array(start))
    spread = np.full((len(start), 1, 1), 1 / values.var())
    reference = GaussianMixture(
        len(start),
        weights_init=np.full(len(start), 1 / len(start)),
        means_init=np.array(start)[:, None],
        precisions_init=spread,
        tol=1e-7,
        max_iter=1000,
    ).fit(values[:, None])
    order = reference.means_.ravel().argsort()
    # The histogram knows a value up to half a bin of 0.0037, which mostly averages out.
    np.testing.assert_allclose(found.mean, reference.means_.ravel()[order], atol=0.001)
    np.testing.assert_allclose(found.deviation, np.sqrt(reference.covariances_.ravel()[order]), atol=0.001)
    np.testing.assert_allclose(found.weight, reference.weights_[order], atol=0.002)


def test_the_likelihood_never_falls() -> None:
    shape = histogram(two_heaps())
    counts = shape.counts / shape.counts.sum()
    scores = []
    for iterations in range(1, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pseudolabel.labels.mixture._ITERATIONS", iterations)
            mixture = fit_mixture(shape, np.array([0.3, 0.4]))
        scores.append(counts @ np.logaddexp.reduce(mixture.log_joint(shape.centres), axis=0))
    assert (np.diff(scores) > 0).all()


def test_log_joint_and_posterior_by_hand() -> None:
    mixture = Mixture(np.array([0.25, 0.75]), np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    joint = mixture.log_joint(np.array([1.0]))
    expected = [np.log(0.25) - 0.5 * np.log(2 * np.pi) - 0.5, np.log(0.75) - np.log(2) - 0.5 * np.log(2 * np.pi)]
    np.testing.assert_allclose(joint[:, 0], expected)
    np.testing.assert_allclose(mixture.posterior(np.array([1.0]))[:, 0], np.exp(expected) / np.exp(expected).sum())


def test_the_threshold_maximises_the_stated_sum() -> None:
    shape = histogram(two_heaps(), bins=64)
    found = cut_by_two(shape)
    values = np.repeat(shape.centres, shape.counts)
    background, foreground = found.mixture.log_joint(values)
    sums = [foreground[values >= edge].sum() + background[values < edge].sum() for edge in shape.edges]
    assert found.value == pytest.approx(shape.edges[int(np.argmax(sums))])
    assert 0.35 < found.value < 0.5


def test_low_and_high_enclose_the_values_that_could_be_either() -> None:
    found = cut_by_two(histogram(two_heaps()))
    assert found.low < found.value < found.high
    background, foreground = found.mixture.posterior(np.array([found.low, found.high]))
    assert background[0] >= 0.9
    assert foreground[1] >= 0.9
    inside = found.mixture.posterior(np.linspace(found.low + 0.004, found.high - 0.004, 9)).max(axis=0)
    assert inside.min() < 0.9


def test_only_the_shape_of_a_histogram_matters() -> None:
    shape = histogram(two_heaps())
    once, often = cut_by_two(shape), cut_by_two(Histogram(shape.edges, shape.counts * 50))
    assert (once.value, once.low, once.high) == (often.value, often.low, often.high)


def test_a_shifted_and_stretched_histogram_has_shifted_and_stretched_thresholds() -> None:
    counts = histogram(two_heaps()).counts
    unit, other = (cut_by_two(Histogram(np.linspace(low, high, 257), counts)) for low, high in ((0, 1), (3, 5)))
    for name in ("value", "low", "high"):
        assert getattr(other, name) == pytest.approx(3 + 2 * getattr(unit, name))


def test_the_threshold_has_values_on_both_sides_or_there_is_none() -> None:
    refused = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        values = random.normal(random.uniform(0.1, 0.9), random.uniform(0.004, 0.06), 900)
        counted = histogram(values[(values > 0.05) & (values <= 1)])
        try:
            value = cut_by_two(counted).value
        except UnfitError:
            refused += 1
        else:
            assert 0 < counted.counts[counted.centres < value].sum() < counted.counts.sum()
    assert 0 < refused < 200


def test_values_that_all_lie_beside_the_threshold_are_an_error() -> None:
    values = np.random.default_rng(13).normal(0.305, 0.057, 647)
    with pytest.raises(UnfitError, match=r"^647 values in one heap$"):
        cut_by_two(histogram(values))


def test_in_a_gap_the_middle_is_taken() -> None:
    found = cut_by_two(as_histogram(np.array([40, 50, 0, 0, 0, 0, 0, 0, 30, 20]), 0.0))
    assert found.value == pytest.approx(0.5)


def test_the_released_rule_takes_the_ends_of_the_outer_components() -> None:
    values = three_heaps()
    found = cut_by_three(histogram(values))
    assert found.low == pytest.approx(values[values < 0.33].max(), abs=0.002)  # half a bin
    assert found.high == pytest.approx(values[values > 0.66].min(), abs=0.002)
    assert found.value == (found.low + found.high) / 2


@pytest.mark.parametrize("seed", range(6))
def test_the_released_rule_is_scikit_learns_unconverged_fit(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.concatenate([random.beta(1, 6, 4000), random.beta(5, 4, 1500), random.beta(12, 2, 700)])
    values = values[values > 0.05]
    means = np.array([[values.min()], [np.median(values)], [values.max()]])
    start = {"weights_init": [1 / 3] * 3, "means_init": means, "precisions_init": [[[1.0]]] * 3}
    member = GaussianMixture(3, **start).fit_predict(values[:, None])  # as CoSA's released code calls it
    found = cut_by_three(histogram(values))
    bin_width = 0.95 / 256
    assert found.low == pytest.approx(values[member == 0].max(), abs=1.5 * bin_width)
    assert found.high == pytest.approx(values[member == 2].min(), abs=1.5 * bin_width)
    converged = refine_mixture(histogram(values), found.mixture, 1000)
    assert np.abs(converged.mean - found.mixture.mean).max() > 0.02  # it stops long before


def test_the_released_rule_never_puts_low_above_high() -> None:
    for seed in range(20):
        counts = np.random.default_rng(seed).integers(0, 9, 30) * (np.random.default_rng(seed + 50).random(30) < 0.3)
        counts[[2, 9, 25]] += 1
        found = cut_by_three(as_histogram(counts, 0.05))
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("counts", "cut", "message"),
    [
        ([0, 0, 0, 0], cut_by_two, "0 values in 0 of 4 bins"),
        ([0, 7, 0, 0], cut_by_two, "7 values in 1 of 4 bins"),
        ([3, 7, 0, 0], cut_by_three, "10 values in 2 of 4 bins"),
    ],
)
def test_too_few_values_are_an_error(counts: list[int], cut: object, message: str) -> None:
    with pytest.raises(UnfitError, match=f"^{message}$"):
        cut(as_histogram(np.array(counts), 0.05))  # type: ignore[operator]


def test_two_values_are_enough() -> None:
    found = cut_by_two(as_histogram(np.array([5, 0, 0, 5]), 0.0))
    assert found.value == pytest.approx(0.5)


def test_too_few_values_for_the_components_are_an_error() -> None:
    with pytest.raises(UnfitError, match=r"^5 values in 1 of 3 bins$"):
        fit_mixture(as_histogram(np.array([5, 0, 0]), 0.0), np.array([0.1, 0.9]))
