"""Boundary bands and boundary IoU against an erosion class by class, as the metric's authors define it."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from pseudolabel.metrics.boundary import boundary_distance
from pseudolabel.metrics.confusion import PixelCounter, boundary_counts
from pseudolabel.metrics.scores import iou
from pseudolabel.options import IgnoredPolicy
from tests.helpers.voc import array, random_labels


def slow_band(mask: np.ndarray, distance: int) -> np.ndarray:
    """The mask less its erosion by a square; what lies outside the image does not belong to it."""
    padded = np.pad(mask, distance)
    side = 2 * distance + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return mask & ~windows.all(axis=(2, 3))


def slow_boundary_counts(
    truth: np.ndarray, prediction: np.ndarray, classes: int, distance: int, ignored: str
) -> np.ndarray:
    truth, prediction = truth.copy(), prediction.copy()
    if ignored == "background":
        prediction[prediction == 255] = 0
    elif ignored == "drop":
        truth[prediction == 255] = 255
    prediction[truth == 255] = 255
    counts = np.zeros((classes, 3))
    for label in range(classes):
        true, given = slow_band(truth == label, distance), slow_band(prediction == label, distance)
        counts[label] = (true & given).sum(), true.sum(), given.sum()
    return counts


@pytest.mark.parametrize("ignored", get_args(IgnoredPolicy))
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (23, 31), (60, 41)])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.12])
def test_bands_are_those_of_an_erosion(ignored: IgnoredPolicy, shape: tuple[int, int], share: float) -> None:
    distance = boundary_distance(*shape, share)
    counter = PixelCounter(3, boundary=share, ignored=ignored)
    for seed in range(6):
        truth, prediction = random_labels(seed, *shape), random_labels(seed // 2 + 50, *shape)
        if seed % 2:
            prediction[prediction == 255] = 2
        found = boundary_counts(counter.table(truth, prediction), ignored)
        np.testing.assert_array_equal(found, slow_boundary_counts(truth, prediction, 3, distance, ignored))


def test_boundary_iou_of_a_shifted_square_by_hand() -> None:
    truth, prediction = np.zeros((2, 7, 7), dtype=np.uint8)
    truth[1:6, 1:6] = 1
    prediction[1:6, 2:7] = 1
    table = PixelCounter(2, boundary=0.01, ignored="background").table(truth, prediction)
    counts = boundary_counts(table, "background")
    # Distance 1. The square's band is its rim of 16 pixels; of both rims 4 pixels at the top and 4 at the bottom agree.
    assert counts[1].tolist() == [8, 16, 16]
    assert iou(counts)[1] == 8 / 24


def test_a_prediction_that_is_right_wherever_it_counts_scores_one() -> None:
    truth = random_labels(3, 50, 70)
    truth[10:14] = 255
    prediction = np.where(truth == 255, random_labels(4, 50, 70, (0, 1, 2)), truth)
    table = PixelCounter(3, boundary=0.03, ignored="background").table(truth, prediction)
    np.testing.assert_array_equal(iou(boundary_counts(table, "background")), 1)


@pytest.mark.parametrize(("shape", "expected"), [((375, 500), 12), ((10, 10), 1), ((1, 1), 1), ((480, 640), 16)])
def test_the_distance_is_a_share_of_the_diagonal(shape: tuple[int, int], expected: int) -> None:
    assert boundary_distance(*shape, 0.02) == expected


def test_the_counter_can_go_from_large_to_small_images() -> None:
    counter = PixelCounter(3, boundary=0.05, ignored="miss")
    for shape in ((40, 50), (8, 9), (40, 30), (1, 3)):
        truth, prediction = random_labels(1, *shape), random_labels(2, *shape)
        alone = PixelCounter(3, boundary=0.05, ignored="miss").table(truth, prediction)
        np.testing.assert_array_equal(counter.table(truth, prediction), alone)


def test_an_image_smaller_than_the_distance_is_all_boundary() -> None:
    truth = array([[0, 1], [0, 1]])
    counts = boundary_counts(PixelCounter(2, boundary=0.9, ignored="drop").table(truth, truth), "drop")
    assert counts.tolist() == [[2, 2, 2], [2, 2, 2]]
