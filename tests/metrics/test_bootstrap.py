"""The one-pass bootstrap: its weights, its independence of portions, and its width beside the ordinary bootstrap's."""

from __future__ import annotations

import math

import numpy as np

from pseudolabel.metrics.bootstrap import PoissonBootstrap, poisson_weights
from pseudolabel.metrics.scores import class_mean, iou


def some_counts(images: int, seed: int = 0) -> np.ndarray:
    """Class counts (B, K, 3) of images on which a method does more or less well."""
    random = np.random.default_rng(seed)
    true = random.integers(100, 1000, (images, 4)) * (random.random((images, 4)) < 0.6)
    hits = (true * random.beta(4, 2, (images, 4))).astype(int)
    return np.stack([hits, true, hits + random.integers(0, 200, (images, 4))], axis=-1).astype(float)


def interval(counts: np.ndarray, sizes: list[int], *, seed: int = 0, resamples: int = 500) -> np.ndarray:
    bootstrap = PoissonBootstrap(resamples, seed)
    for portion in np.split(counts, np.cumsum(sizes)):
        bootstrap.add(portion)
    found = bootstrap.interval()
    assert found is not None
    return found


def test_weights_are_poisson_numbers() -> None:
    weights = poisson_weights(np.random.default_rng(0), 1000, 300)
    shares = np.bincount(weights.ravel(), minlength=6)[:6] / weights.size
    expected = [math.exp(-1) / math.factorial(times) for times in range(6)]
    np.testing.assert_allclose(shares, expected, atol=4 / math.sqrt(weights.size))  # four standard errors at most


def test_the_interval_does_not_depend_on_portions_but_on_the_seed() -> None:
    counts = some_counts(50)
    whole = interval(counts, [])
    np.testing.assert_array_equal(interval(counts, [7, 7, 1, 20]), whole)
    np.testing.assert_array_equal(interval(counts, [32]), whole)
    assert (interval(counts, [], seed=1) != whole).any()


def test_the_interval_is_as_wide_as_an_ordinary_bootstraps() -> None:
    counts = some_counts(200)
    random = np.random.default_rng(1)
    scores = [float(class_mean(iou(counts[random.integers(0, 200, 200)].sum(axis=0)))) for _ in range(2000)]
    ordinary = np.quantile(scores, [0.025, 0.975])
    found = interval(counts, [], resamples=2000)
    width = ordinary[1] - ordinary[0]
    # The ends of either interval vary by about 4 % of its width from seed to seed.
    np.testing.assert_allclose(found, ordinary, atol=0.12 * width)
    assert found[0] < class_mean(iou(counts.sum(axis=0))) < found[1]


def test_several_label_maps_share_their_weights() -> None:
    counts = some_counts(40)
    pair = np.stack([counts, counts], axis=1)
    found = interval(pair, [])
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    np.testing.assert_array_equal(found[:, 0], interval(counts, []))


def test_one_image_has_an_interval_of_no_width_and_none_has_none() -> None:
    counts = some_counts(1)
    score = float(class_mean(iou(counts[0])))
    np.testing.assert_allclose(interval(counts, []), score)
    assert PoissonBootstrap(100, 0).interval() is None
    switched_off = PoissonBootstrap(0, 0)
    switched_off.add(counts)
    assert switched_off.interval() is None


def test_images_without_a_pixel_that_counts_have_no_interval() -> None:
    assert np.isnan(interval(np.zeros((3, 4, 3)), [])).all()
