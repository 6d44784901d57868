"""What refiners share: what they start from, which pixels a rule leaves unlabelled, what is stored of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pseudolabel.data import Dataset, Record
from pseudolabel.labels.assignment import Thresholds, assign_confident, probabilities
from pseudolabel.labels.inputs import MapsTask
from pseudolabel.labels.refinement import Rules, Start, make_start, refine, runs_of_cams, soft_labels
from tests.helpers.artefacts import synthetic

ALL = Thresholds(np.full(4, 0.4), low=np.full(4, 0.25), high=np.full(4, 0.7))
LABELS, MAPS = np.array([2]), np.array([[[0.9, 0.71, 0.6, 0.3, 0.2, 0.0]]], dtype=np.float32)
GREY = np.full((1, 6, 3), 90, dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


def start(confidence: str, labels: np.ndarray = LABELS, maps: np.ndarray = MAPS) -> Start:
    runs, unlabelled = runs_of_cams(labels, maps, ALL, confidence, probabilities)
    return Start(Record("a", Path("a.jpg"), None), GREY, np.concatenate([[0], labels]), runs, unlabelled)


def rules(confidence: str, sure: float = 0.95, *, thresholds: Thresholds | None = ALL) -> Rules:
    return Rules(thresholds, confidence, probabilities, sure, skip=False, constrained=False)


def labelled(stored: dict[int, np.ndarray]) -> list[int]:
    """The label of each pixel of the one row."""
    classes = [label for label in stored if label != 255]
    found = np.array(classes)[np.stack([stored[label] for label in classes]).argmax(axis=0)]
    return np.where(stored.get(255, np.zeros((1, 6))) > 127, 255, found)[0].tolist()


@pytest.mark.parametrize("rule", ["irn", "cosa"])
def test_between_the_thresholds_a_pixel_is_unlabelled(rule: str) -> None:
    begun = start(rule)
    assert labelled(soft_labels(begun, begun.runs, rules(rule))) == [2, 2, 255, 255, 0, 0]


def test_without_a_rule_every_pixel_is_labelled() -> None:
    begun = start("none")
    stored = soft_labels(begun, begun.runs, rules("none"))
    assert labelled(stored) == [2, 2, 2, 0, 0, 0]
    assert list(stored) == [0, 2]
    np.testing.assert_array_equal(begun.runs[0], probabilities(LABELS, MAPS, ALL.value))


def test_irn_keeps_the_high_runs_class_and_its_probabilities() -> None:
    """Refined by hand: background wins a pixel of the high run, class 1 one of the low, and the classes disagree."""
    labels, maps = np.array([1, 3]), np.tile(MAPS, (2, 1, 1))
    begun = start("irn", labels, maps)
    for run, bound in zip(begun.runs, (0.7, 0.25), strict=True):
        np.testing.assert_array_equal(run, probabilities(labels, maps, np.full(4, bound)))
    high = np.array(
        [[[0.1, 0.6, 0.9, 0.2, 0.4, 0.0]], [[0.8, 0.1, 0.1, 0.2, 0.3, 0.3]], [[0.1, 0.3, 0, 0.6, 0.3, 0.7]]]
    )
    low = np.array([[[0.1, 0.1, 0.9, 0.2, 0.4, 0.9]], [[0.1, 0.8, 0.1, 0.7, 0.3, 0.1]], [[0.8, 0.1, 0, 0.1, 0.3, 0.0]]])
    stored = soft_labels(begun, [high, low], rules("irn"))
    assert labelled(stored) == [1, 255, 0, 3, 0, 3]
    assert stored[1][0].tolist() == [204, 26, 26, 51, 76, 76]


def test_cosa_leaves_unlabelled_exactly_what_lies_between_whatever_the_refiner_says() -> None:
    begun = start("cosa")
    all_object = np.stack([np.zeros((1, 6)), np.ones((1, 6))]).astype(np.float32)
    assert labelled(soft_labels(begun, [all_object], rules("cosa"))) == [2, 2, 255, 255, 2, 2]
    assert begun.unlabelled is not None
    between = assign_confident(LABELS, MAPS, np.full(4, 0.25), np.full(4, 0.7)) == 255
    np.testing.assert_array_equal(begun.unlabelled, between)


def test_posterior_leaves_unlabelled_what_is_less_probable_than_asked_for() -> None:
    begun = start("posterior")
    assert len(begun.runs) == 1
    object_ = np.array([[[0.99, 0.95, 0.94, 0.5, 0.06, 0.05]]], dtype=np.float32)
    refined = np.concatenate([1 - object_, object_])
    assert labelled(soft_labels(begun, [refined], rules("posterior"))) == [2, 2, 255, 255, 255, 0]
    assert labelled(soft_labels(begun, [refined], rules("posterior", 0.5))) == [2, 2, 2, 0, 0, 0]
    assert labelled(soft_labels(begun, [refined], rules("posterior", 1.0))) == [255] * 6


def test_what_was_unlabelled_stays_so_beside_the_posterior(dataset: Dataset) -> None:
    record = dataset.records[0]
    size = dataset.read_mask(record).shape
    ignored = np.zeros(size, dtype=np.float32)
    ignored[0, 0] = 1
    even = np.full(size, 0.5, dtype=np.float32)
    found = refine(
        [(MapsTask(size, {0: even, 1: even, 255: ignored}), record)], rules("posterior", 0.5, thresholds=None), plain
    )
    assert not isinstance(found[0], str)
    assert list(found[0]) == [0, 1, 255]
    np.testing.assert_array_equal(found[0][255], ignored * 255)


def test_images_of_a_batch_keep_their_order_and_reasons(dataset: Dataset) -> None:
    size = dataset.read_mask(dataset.records[1]).shape
    background = {0: np.full(size, 1, dtype=np.float32)}
    tasks = [
        (MapsTask(size, background, skipped="is empty"), dataset.records[0]),
        (MapsTask(size, background), dataset.records[1]),
    ]
    found = refine(tasks, rules("none", thresholds=None), plain)
    assert found[0] == "is empty"
    assert not isinstance(found[1], str)
    np.testing.assert_array_equal(found[1][0], np.full(size, 255))
    assert refine(tasks[:1], rules("none", thresholds=None), plain) == ["is empty"]


def test_soft_labels_are_normalised(dataset: Dataset) -> None:
    record = dataset.records[0]
    size = dataset.read_mask(record).shape
    maps = {0: np.full(size, 0.2, dtype=np.float32), 3: np.full(size, 0.6, dtype=np.float32)}
    begun = make_start((MapsTask(size, maps), record), rules("none", thresholds=None))
    assert not isinstance(begun, str)
    assert begun.labels.tolist() == [0, 3]
    np.testing.assert_allclose(begun.runs[0][:, 0, 0], [0.25, 0.75])


def plain(starts: list[Start]) -> list[tuple[np.ndarray, ...]]:
    """No refiner at all."""
    return [begun.runs for begun in starts]
