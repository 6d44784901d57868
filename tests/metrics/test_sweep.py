"""The sweep over all thresholds against a hundred label maps."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.labels.assignment import assign
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.sweep import THRESHOLDS, count_levels, curve_counts, levels
from tests.helpers.voc import random_labels


def slow_counts(truth: np.ndarray, labels: np.ndarray, maps: np.ndarray) -> np.ndarray:
    counter = PixelCounter(3, boundary=None, ignored="background")
    maps_at = [assign(labels, maps, np.full(3, threshold)) for threshold in THRESHOLDS]
    return np.stack([class_counts(counter.table(truth, found), "background") for found in maps_at])


def some_maps(seed: int, count: int, shape: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    maps = random.random((count, *shape), dtype=np.float32)
    exact = random.choice(THRESHOLDS, size=maps.shape).astype(np.float32)
    return np.where(random.random(maps.shape) < 0.5, exact, maps)


@pytest.mark.parametrize("labels", [[], [2], [1, 2]])
def test_the_curve_is_that_of_one_label_map_a_threshold(labels: list[int]) -> None:
    truth = random_labels(1, 30, 40)
    maps = some_maps(2, len(labels), truth.shape)
    found = curve_counts(count_levels(truth, np.array(labels, dtype=np.int64), maps, 3))
    np.testing.assert_array_equal(found, slow_counts(truth, np.array(labels, dtype=np.int64), maps))


def test_images_add_up() -> None:
    truths = [random_labels(seed, 9, 9) for seed in range(3)]
    labels = [np.array(present, dtype=np.int64) for present in ([1], [], [1, 2])]
    maps = [some_maps(seed, len(present), (9, 9)) for seed, present in enumerate(labels)]
    total = sum(count_levels(*image, 3) for image in zip(truths, labels, maps, strict=True))
    expected = sum(slow_counts(*image) for image in zip(truths, labels, maps, strict=True))
    np.testing.assert_array_equal(curve_counts(total), expected)


def test_a_score_reaches_exactly_the_thresholds_up_to_it() -> None:
    exact = THRESHOLDS.astype(np.float32)
    np.testing.assert_array_equal(levels(exact), np.arange(1, 101))
    np.testing.assert_array_equal(levels(np.nextafter(exact[1:], np.float32(0))), np.arange(1, 100))
    np.testing.assert_array_equal(levels(np.nextafter(exact, np.float32(1))), np.arange(1, 101))
    np.testing.assert_array_equal(levels(np.array([1, 1.001], dtype=np.float32)), [100, 100])
