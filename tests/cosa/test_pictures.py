"""The picture of what co-training does to a few images of a batch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pseudolabel.cosa.pictures import training_grid
from pseudolabel.data.palette import PALETTE
from pseudolabel.export.pictures import paint_heat, paint_labels

CLASSES = ("background", "cat", "dog", "bird")
TILE, STEP = 224, (224 + 22 + 10, 224 + 10)  # from row to row and from column to column: title and margin


def batch(images: int = 2, side: int = TILE) -> dict[str, Any]:
    random = np.random.default_rng(0)
    cell = side // 16
    return {
        "photographs": random.integers(0, 256, (images, side, side, 3), dtype=np.uint8),
        "cams": random.random((images, 3, cell, cell)).astype(np.float32),
        "cam_labels": np.repeat(random.choice([0, 1, 255], (images, side, 1)).astype(np.uint8), side, axis=2),
        "segmentation_labels": random.integers(0, 4, (images, cell, cell)),
        "prediction": random.integers(0, 4, (images, cell, cell)),
        "tags": np.array([[1, 0, 1]] * images, np.float32),
    }


def tile(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = 10 + row * STEP[0] + 22, 10 + column * STEP[1]
    return picture[top : top + TILE, left : left + TILE]


def test_every_tile_shows_what_it_should() -> None:
    given = batch()
    given["cams"][:] = np.array([0.0, 0.25, 1.0])[None, :, None, None]  # the strongest class is 1 everywhere
    picture = training_grid(**given, classes=CLASSES)
    assert picture.dtype == np.uint8
    assert picture.shape == (10 + 2 * STEP[0] + 22 + 10, 10 + 5 * STEP[1], 3)
    for row in range(2):
        photograph = given["photographs"][row]
        np.testing.assert_array_equal(tile(picture, row, 0), photograph)
        np.testing.assert_array_equal(tile(picture, row, 1), paint_heat(photograph, np.ones((TILE, TILE))))
        for column, name in ((3, "segmentation_labels"), (4, "prediction")):
            labels = given[name][row].repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
            np.testing.assert_array_equal(tile(picture, row, column), paint_labels(photograph, labels))


def test_pixels_without_a_label_are_striped() -> None:
    given = batch()
    picture = training_grid(**given, classes=CLASSES)
    labels, photograph = given["cam_labels"][0], given["photographs"][0]
    shown = tile(picture, 0, 2)
    known = labels != 255
    np.testing.assert_array_equal(shown[known], paint_labels(photograph, np.where(known, labels, 0))[known])
    striped = (shown[~known] == PALETTE[255]).all(axis=-1)
    assert 3 / 8 - 0.02 < striped.mean() < 3 / 8 + 0.02


def test_no_more_rows_than_wanted_and_no_more_than_there_are() -> None:
    for images, rows in ((1, 1), (4, 4), (6, 4)):
        assert training_grid(**batch(images, 32), classes=CLASSES).shape[0] == 10 + rows * STEP[0] + 32
    assert training_grid(**batch(4, 32), classes=CLASSES, rows=2).shape[0] == 10 + 2 * STEP[0] + 32


def test_the_class_names_stand_above_their_row() -> None:
    given = batch()
    with_tags = training_grid(**given, classes=CLASSES)
    given["tags"][1] = 0
    without = training_grid(**given, classes=CLASSES)
    changed = np.flatnonzero((with_tags != without).any(axis=(1, 2)))
    assert 10 + STEP[0] <= changed.min() <= changed.max() < 10 + STEP[0] + 22


@pytest.mark.parametrize("size", [(32, 64), (448, 320), (1, 224)])
def test_views_of_any_shape(size: tuple[int, int]) -> None:
    given = batch(1, 32)
    given["photographs"] = np.zeros((1, *size, 3), np.uint8)
    given["cam_labels"] = np.zeros((1, *size), np.uint8)
    assert training_grid(**given, classes=CLASSES).shape[1] == 10 + 5 * STEP[1]


def test_it_is_repeatable_and_changes_nothing() -> None:
    given = batch()
    before = {name: array.copy() for name, array in given.items()}
    first, second = (training_grid(**given, classes=CLASSES) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for name, array in before.items():
        np.testing.assert_array_equal(given[name], array)


def test_it_needs_no_torch() -> None:
    code = "import sys, pseudolabel.cosa.pictures; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
