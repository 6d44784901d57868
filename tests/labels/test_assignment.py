"""From maps and thresholds to labels: hand-made cases and the rule's properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.labels.assignment import Thresholds, assign, assign_confident, probabilities, read_thresholds

LABELS = np.array([2, 5])
MAPS = np.array([[[0.9, 0.3, 0.1]], [[0.5, 0.6, 0.2]]], dtype=np.float32)


def one(value: float) -> np.ndarray:
    return np.full(7, value)


def test_one_threshold_takes_the_strongest_class_that_reaches_it():
    assert assign(LABELS, MAPS, one(0.4)).tolist() == [[2, 5, 0]]
    assert assign(LABELS, MAPS, one(0.6)).tolist() == [[2, 5, 0]]  # float32 0.6 reaches float32 0.6
    assert assign(LABELS, MAPS, one(0.7)).tolist() == [[2, 0, 0]]
    assert assign(LABELS, MAPS, one(0.0)).tolist() == [[2, 5, 5]]


def test_thresholds_by_class_compare_by_how_far_each_is_exceeded():
    threshold = one(0.4)
    threshold[2] = 0.85  # 0.9 exceeds it by 0.05, 0.5 exceeds 0.4 by 0.1
    assert assign(LABELS, MAPS, threshold).tolist() == [[5, 5, 0]]


def test_between_the_thresholds_a_pixel_is_unlabelled():
    assert assign_confident(LABELS, MAPS, one(0.25), one(0.7)).tolist() == [[2, 255, 0]]


def test_an_image_without_classes_is_background():
    empty = np.zeros((0, 2, 3), dtype=np.float32)
    none = np.zeros(0, dtype=np.int64)
    assert assign(none, empty, one(0.4)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert probabilities(none, empty, one(0.4)).tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_probabilities_by_hand():
    found = probabilities(LABELS, MAPS, one(0.4))
    np.testing.assert_allclose(found[:, 0, 0], np.array([0.4, 0.9, 0.5]) / 1.8, rtol=1e-6)


@given(
    hnp.arrays(np.float32, (2, 3, 4), elements=st.integers(0, 100).map(lambda k: np.float32(k / 100))),
    st.integers(1, 99),
)
def test_the_most_probable_class_is_the_assigned_one(maps, percent):
    threshold = one(percent / 100 - 0.005)  # between the values that a map can take: no ties with the background
    soft = probabilities(LABELS, maps, threshold)
    assert np.allclose(soft.sum(axis=0), 1, atol=1e-5)
    assigned = assign(LABELS, maps, threshold)
    chosen = np.concatenate([[0], LABELS])[soft.argmax(axis=0)]
    tied = maps[0] == maps[1]
    assert np.array_equal(chosen[~tied], assigned[~tied])


@given(
    hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_sure_labels_agree_with_both_thresholds(maps, first, second):
    low, high = sorted((first, second))
    found = assign_confident(LABELS, maps, one(low), one(high))
    sure = found != 255
    assert np.array_equal(found[found > 0] == 255, ~sure[found > 0])
    assert np.array_equal(assign(LABELS, maps, one(low))[found == 0], found[found == 0])
    labelled = sure & (found > 0)
    assert np.array_equal(assign(LABELS, maps, one(high))[labelled], found[labelled])


FITTED = {"method": "fixed", "fitted_on": "nothing"}


def test_thresholds_survive_the_file(tmp_path):
    path = tmp_path / "t.h5"
    stored = Thresholds(one(0.4), high=one(0.7))
    header = Header("thresholds", "search-threshold", {}, ("background", *"abcdef"), facts=FITTED)
    write_artefact(path, header, stored.arrays(), CostMeter())
    found, read = read_thresholds(path)
    assert found.value.tolist() == stored.value.tolist()
    assert found.low is None
    assert found.high is not None
    assert found.high.tolist() == pytest.approx([0.7] * 7)
    assert read.classes[1:] == tuple("abcdef")
