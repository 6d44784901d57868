"""Pixel counts and scores: small cases by hand, a slow reference, every policy for a predicted 255."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from pseudolabel.metrics.confusion import LabelRangeError, PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, error_shares, iou, summarise
from pseudolabel.options import IgnoredPolicy
from tests.helpers.voc import array, random_labels

POLICIES = get_args(IgnoredPolicy)
TRUTH = array([[0, 0, 1], [0, 1, 1], [255, 255, 2]])
PREDICTION = array([[0, 1, 1], [255, 1, 0], [1, 255, 255]])


def table(
    truth: np.ndarray, prediction: np.ndarray, classes: int = 3, ignored: IgnoredPolicy = "background"
) -> np.ndarray:
    return PixelCounter(classes, boundary=None, ignored=ignored).table(truth, prediction)


def slow_counts(truth: np.ndarray, prediction: np.ndarray, classes: int, ignored: str) -> np.ndarray:
    counts = np.zeros((classes, 3))
    for true, given in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true == 255 or (given == 255 and ignored == "drop"):
            continue
        label = 0 if given == 255 and ignored == "background" else given
        counts[true, 1] += 1
        if label != 255:
            counts[label, 2] += 1
        if label == true:
            counts[true, 0] += 1
    return counts


def test_a_table_holds_every_pixel_by_true_and_predicted_label() -> None:
    expected = [
        [1, 1, 0, 1],  # truly background: given background, cat, dog, nothing
        [1, 2, 0, 0],
        [0, 0, 0, 1],
        [0, 1, 0, 1],  # truly 255
    ]
    assert table(TRUTH, PREDICTION).sum(axis=-1).tolist() == expected


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        # background: hits 2, true 3, predicted 1 + 1 + (1 + 1 unlabelled) = 4; cat 2 of 3 true, 3 predicted; dog 0 of 1
        ("background", [2 / 5, 2 / 4, 0]),
        # drop: background 1 hit, 2 true, 2 predicted; cat as before; dog does not occur any more
        ("drop", [1 / 3, 2 / 4, None]),
        # miss: background 1 hit, 3 true, 2 predicted; dog 0 of 1
        ("miss", [1 / 4, 2 / 4, 0]),
    ],
)
def test_iou_by_hand_under_every_policy(ignored: IgnoredPolicy, expected: list[float | None]) -> None:
    scores = summarise(table(TRUTH, PREDICTION), ("background", "cat", "dog"), ignored, boundary=False)
    assert scores["iou"] == pytest.approx(dict(zip(("background", "cat", "dog"), expected, strict=True)))
    assert scores["miou"] == pytest.approx(np.mean([value for value in expected if value is not None]), abs=1e-6)
    assert scores["labelled_share"] == pytest.approx(5 / 7, abs=1e-6)
    assert scores["boundary_iou"] is None


def test_all_scores_of_a_two_by_two_image_by_hand() -> None:
    scores = summarise(table(array([[0, 0], [1, 1]]), array([[0, 1], [1, 1]])), "abc", "background", boundary=False)
    assert scores == {
        "miou": round((1 / 2 + 2 / 3) / 2, 6),
        "precision": round((1 + 2 / 3) / 2, 6),
        "recall": 0.75,
        "pixel_accuracy": 0.75,
        "mean_accuracy": 0.75,
        "boundary_iou": None,
        "labelled_share": 1.0,
        "iou": {"a": 0.5, "b": round(2 / 3, 6), "c": None},
        "precision_by_class": {"a": 1.0, "b": round(2 / 3, 6), "c": None},
        "recall_by_class": {"a": 0.5, "b": 1.0, "c": None},
        "false_positives": {"a": 0.0, "b": round(1 / 3, 6), "c": None},
        "false_negatives": {"a": 0.5, "b": 0.0, "c": None},
        "boundary_iou_by_class": {"a": None, "b": None, "c": None},
    }


def test_a_class_that_is_never_predicted_has_no_precision_and_a_class_never_true_has_no_score() -> None:
    scores = summarise(table(array([[0, 1]]), array([[0, 2]])), "abc", "background", boundary=False)
    assert scores["precision_by_class"] == {"a": 1.0, "b": None, "c": None}
    assert scores["precision"] == 1
    assert scores["iou"] == {"a": 1.0, "b": 0.0, "c": None}
    assert scores["miou"] == 0.5


def test_without_a_pixel_that_counts_there_is_no_score() -> None:
    scores = summarise(table(array([[255]]), array([[1]])), "abc", "background", boundary=False)
    assert {scores[name] for name in ("miou", "pixel_accuracy", "labelled_share", "precision")} == {None}


@pytest.mark.parametrize("ignored", POLICIES)
@pytest.mark.parametrize("boundary", [None, 0.02])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (13, 17), (40, 61)])
def test_counts_are_those_of_a_loop_over_pixels(
    ignored: IgnoredPolicy, boundary: float | None, shape: tuple[int, int]
) -> None:
    counter = PixelCounter(3, boundary=boundary, ignored=ignored)
    for seed in range(4):
        truth, prediction = random_labels(seed, *shape), random_labels(seed + 100, *shape)
        found = counter.table(truth, prediction)
        assert found.sum() == truth.size
        np.testing.assert_array_equal(class_counts(found, ignored), slow_counts(truth, prediction, 3, ignored))


def test_counts_of_several_images_add_up_and_do_not_depend_on_memory_order() -> None:
    pairs = [(random_labels(seed, 20, 30), random_labels(seed + 9, 20, 30)) for seed in range(3)]
    one_by_one = sum(table(*pair) for pair in pairs)
    at_once = table(*(np.concatenate(maps) for maps in zip(*pairs, strict=True)))
    np.testing.assert_array_equal(one_by_one, at_once)
    truth, prediction = pairs[0]
    np.testing.assert_array_equal(table(truth, prediction), table(truth.T.copy().T, np.asfortranarray(prediction)))


def test_up_to_255_classes_can_be_counted() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = table(labels, labels, classes=255).sum(axis=-1)
    np.testing.assert_array_equal(found, np.eye(256))


@pytest.mark.parametrize("ignored", POLICIES)
@pytest.mark.parametrize("unlabelled", [0, 255])
def test_a_label_that_is_no_class_is_an_error_even_where_it_would_not_count(
    ignored: IgnoredPolicy, unlabelled: int
) -> None:
    truth = array([[0, 0, 255, 255, 1]])
    for place in range(5):
        prediction = array([[0, 0, unlabelled, 0, 1]])
        prediction[0, place] = 7
        with pytest.raises(LabelRangeError, match=r"^label 7, wanted 0 to 2 or 255$"):
            table(truth, prediction, ignored=ignored)
    with pytest.raises(LabelRangeError, match=r"^label 3, wanted"):
        table(array([[0, 3]]), array([[0, 0]]))


def test_error_shares_and_iou_add_up_to_one() -> None:
    counts = class_counts(table(TRUTH, PREDICTION), "miss")
    np.testing.assert_allclose(iou(counts) + sum(error_shares(counts)), 1)


def test_class_mean_leaves_out_what_is_not_known() -> None:
    values = np.array([[1.0, np.nan, 0.0], [np.nan] * 3])
    np.testing.assert_array_equal(class_mean(values), [0.5, np.nan])
