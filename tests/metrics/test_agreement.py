"""The criterion without masks: hand-computed pictures, slow references, what must not matter."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.metrics.agreement import REACH, area_agreement, edge_agreement


def row(*lengths: int) -> np.ndarray:
    """One row of labels 0, 1, 0, 1 ... in runs of these lengths."""
    return np.concatenate([np.full(length, run % 2, np.uint8) for run, length in enumerate(lengths)])[None]


def painted(labels: np.ndarray, *levels: int) -> np.ndarray:
    """A grey picture with one level a label."""
    return np.repeat(np.array(levels, np.uint8)[labels][..., None], 3, axis=-1)


def slow_edges(image: np.ndarray, labels: np.ndarray) -> float:
    """Every pair of pairs compared, one by one."""
    found: tuple[list[int], list[int]] = ([], [])
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            for v, u in ((y + REACH, x), (y, x + REACH)):
                if v < height and u < width:
                    contrast = sum(abs(int(a) - int(b)) for a, b in zip(image[y, x], image[v, u], strict=True))
                    found[int(labels[y, x] != labels[v, u])].append(contrast)
    within, across = found
    wins = [(a > w) + (a == w) / 2 for a in across for w in within]
    return float(np.mean(wins))


def test_a_boundary_on_the_edge_is_perfect_and_one_beside_it_is_not() -> None:
    scene = row(4, 8)  # pairs (0, 4) to (3, 7) cross the edge, (4, 8) to (7, 11) do not
    picture = painted(scene, 20, 200)
    assert edge_agreement(picture, scene) == 1
    assert edge_agreement(picture, row(8, 4)) == 0
    # boundary at 6: across are (2, 6) to (5, 9), of which (2, 6) and (3, 7) cross the edge; so do 2 of the 4 others
    assert edge_agreement(picture, row(6, 6)) == 0.5
    # boundary at 5: (1, 5), (2, 6), (3, 7) cross the edge, (4, 8) does not; of the others (0, 4) does: wins
    # 3 * (3 + 1/2) + (0 + 3 * 1/2) of 16
    assert edge_agreement(picture, row(5, 7)) == 12 / 16


@pytest.mark.parametrize("labels", [row(12), row(4, 4)])
def test_with_nothing_to_compare_it_is_chance(labels: np.ndarray) -> None:
    assert edge_agreement(painted(labels, 20, 200), labels) == 0.5


def test_a_picture_of_one_colour_says_nothing() -> None:
    assert edge_agreement(painted(row(5, 7), 90, 90), row(5, 7)) == 0.5


def test_a_picture_smaller_than_the_reach() -> None:
    labels = np.array([[0, 1], [1, 1]], np.uint8)
    assert edge_agreement(painted(labels, 0, 255), labels) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_edges_against_a_slow_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (9, 12, 3), dtype=np.uint8) // 40 * 40  # with ties
    labels = random.integers(0, 3, (9, 12), dtype=np.uint8)
    assert edge_agreement(image, labels) == pytest.approx(slow_edges(image, labels), abs=1e-12)


def test_contrast_mirroring_and_names_of_labels_do_not_matter() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 120, (20, 16, 3), dtype=np.uint8)
    labels = random.integers(0, 3, (20, 16), dtype=np.uint8)
    expected = edge_agreement(image, labels)
    assert edge_agreement(image * 2, labels) == expected
    assert edge_agreement(255 - image, labels) == expected
    assert edge_agreement(image[:, ::-1], labels[:, ::-1]) == expected
    assert edge_agreement(image.swapaxes(0, 1), labels.T) == expected
    assert edge_agreement(image, np.array([7, 0, 20], np.uint8)[labels]) == expected


def test_areas_by_hand() -> None:
    start = np.array([[0, 0, 0, 0, 1, 1, 2, 2]], np.uint8)
    assert area_agreement(start, start) == 1
    assert area_agreement(start, start[:, ::-1]) == 1  # wherever it went
    assert area_agreement(start, np.array([[0, 0, 0, 1, 1, 1, 2, 2]], np.uint8)) == 2 / 3  # 3/4, 2/3, 1
    assert area_agreement(start, np.array([[0, 0, 1, 1, 1, 1, 1, 2]], np.uint8)) == 2 / 5  # 2/4, 2/5, 1/2
    assert area_agreement(start, np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.uint8)) == 0  # class 2 is lost
    assert area_agreement(start, np.zeros_like(start)) == 0


def test_a_class_without_pixels_before_has_nothing_to_keep() -> None:
    start = np.zeros((1, 4), np.uint8)
    assert area_agreement(start, np.array([[0, 0, 0, 3]], np.uint8)) == 3 / 4  # background gave a quarter
