"""The jackknife interval: by hand, beside a plain loop, independent of portions, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from pseudolabel.metrics.intervals import Jackknife, describe_interval
from pseudolabel.metrics.scores import class_mean, iou


def some_counts(images: int, seed: int = 0, classes: int = 4) -> np.ndarray:
    """Class counts (B, K, 3) of images on which a method does more or less well; most images lack some classes."""
    random = np.random.default_rng(seed)
    true = random.integers(100, 1000, (images, classes)) * (random.random((images, classes)) < 0.4)
    hits = (true * random.beta(4, 2, (images, classes))).astype(int)
    extra = random.integers(0, 200, (images, classes)) * (random.random((images, classes)) < 0.5)
    return np.stack([hits, true, hits + extra], axis=-1).astype(float)


def interval(counts: np.ndarray, sizes: list[int] | None = None) -> np.ndarray:
    jackknife = Jackknife()
    for portion in np.split(counts, np.cumsum(sizes or [])):
        jackknife.add(portion)
    found = jackknife.interval()
    assert found is not None
    return found


def test_two_images_of_one_class_by_hand() -> None:
    """IoU 1/2 and 3/4 of 100 pixels each: of both 125/200 = 0.625; without either 0.75 and 0.5."""
    counts = np.array([[[50.0, 100, 50]], [[75, 100, 75]]])
    jackknife = Jackknife()
    jackknife.add(counts)
    found = jackknife.interval(share=0.5)  # Student's t with one degree of freedom: 1
    # the variance is 1/2 * (0.125^2 + 0.125^2), so that the error is 0.125
    np.testing.assert_allclose(found, [0.5, 0.75], rtol=1e-12)


def test_it_is_that_of_a_plain_loop() -> None:
    counts = some_counts(30)
    left_out = np.array([class_mean(iou(np.delete(counts, n, axis=0).sum(axis=0))) for n in range(30)])
    error = np.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    score = class_mean(iou(counts.sum(axis=0)))
    np.testing.assert_allclose(interval(counts), score + t.ppf([0.025, 0.975], 29) * error, rtol=1e-10)


def test_a_class_of_one_image_is_left_out_with_it() -> None:
    counts = some_counts(12)
    counts[1:, 3, :2] = 0
    counts[0, 3] = (10, 100, 100)
    left_out = np.array([class_mean(iou(np.delete(counts, n, axis=0).sum(axis=0))) for n in range(12)])
    error = np.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    half = (interval(counts)[1] - interval(counts)[0]) / 2
    assert half == pytest.approx(t.ppf(0.975, 11) * error)


def test_portions_and_order_change_nothing() -> None:
    counts = some_counts(50)
    whole = interval(counts)
    np.testing.assert_allclose(interval(counts, [7, 7, 1, 20]), whole, rtol=1e-12)
    np.testing.assert_allclose(interval(counts[::-1]), whole, rtol=1e-12)


def test_several_label_maps_have_their_own() -> None:
    first, second = some_counts(40), some_counts(40, seed=1)
    found = interval(np.stack([first, second], axis=1))
    np.testing.assert_allclose(found[:, 0], interval(first), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], interval(second), rtol=1e-12)


def test_equal_images_have_an_interval_of_no_width() -> None:
    counts = np.repeat(some_counts(1, seed=3), 5, axis=0)
    np.testing.assert_allclose(interval(counts), float(class_mean(iou(counts[0]))), atol=1e-7)


def test_it_stays_within_0_and_1() -> None:
    low, high = interval(np.array([[[0.0, 100, 100]], [[100, 100, 100]]]))
    assert (low, high) == (0, 1)


def test_one_image_has_no_interval() -> None:
    jackknife = Jackknife()
    assert jackknife.interval() is None
    jackknife.add(some_counts(1))
    assert jackknife.interval() is None
    assert describe_interval(1) is None


def test_images_without_a_pixel_that_counts_have_no_interval() -> None:
    assert np.isnan(interval(np.zeros((3, 4, 3)))).all()


def test_95_of_100_intervals_hold_the_score_of_all_images() -> None:
    """Of 400 sets of 30 of 500 images: within three standard errors of 95 %, or above."""
    population = some_counts(500, seed=5)
    score = class_mean(iou(population.sum(axis=0)))
    random = np.random.default_rng(0)
    bounds = np.array([interval(population[random.integers(0, 500, 30)]) for _ in range(400)])
    covered = ((bounds[:, 0] <= score) & (score <= bounds[:, 1])).mean()
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)
