"""Strong views, regions of other images, and which two images a sample is of."""

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import load_dataset
from pseudolabel.scribble.training_data import LabelledCrops
from pseudolabel.semi.training_data import PairedCrops, Wanted
from pseudolabel.semi.views import mixed_region, paste, strong_view, turned
from tests.helpers.semi import semi_options


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_strong_view_is_the_same_for_the_same_numbers_and_moves_nothing():
    view = np.zeros((8, 8, 3), np.uint8)
    view[:4] = (200, 60, 30)
    found = [strong_view(view, rng(seed)) for seed in range(30)]
    np.testing.assert_array_equal(found[3], strong_view(view, rng(3)))
    assert all(image.dtype == np.uint8 and image.shape == view.shape for image in found)
    assert all(image[0].mean() > image[-1].mean() for image in found)  # light stays above dark
    assert len({image[0, 0].tobytes() for image in found}) > 20
    greys = sum(bool((np.ptp(image.astype(int), axis=2) == 0).all()) for image in found)
    assert 1 <= greys <= 14  # a fifth of them


def test_a_full_turn_of_the_hues_is_none():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert turned(red, 0.0).getpixel((0, 0)) == (255, 0, 0)
    assert turned(red, 1.0).getpixel((0, 0)) == (255, 0, 0)
    green = turned(red, 1 / 3).getpixel((0, 0))
    assert green == (0, 255, 0)
    blue = turned(red, -1 / 3).getpixel((0, 0))
    assert np.abs(np.subtract(blue, (0, 0, 255))).max() <= 6  # hues are of 256 steps, of which each is 6 levels


def test_regions_are_rectangles_of_the_stated_size():
    shares = []
    for seed in range(300):
        region = mixed_region((20, 20), rng(seed))
        rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        assert region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert region.sum() == len(rows) * len(columns)
        shares.append(region.mean())
    assert min(shares) >= 0.01
    assert max(shares) <= 0.45  # 0.4, rounded to cells
    assert np.mean(shares) == pytest.approx(0.21, abs=0.02)
    assert not mixed_region((1, 1), rng()).any()  # of one cell nothing would be left


def test_a_pasted_region_is_of_whole_cells():
    inside = np.array([[True, False], [False, False]])
    view, other = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)
    found = paste(view, other, inside)
    assert found[:, :, 0].tolist() == [[9, 9, 0, 0], [9, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.fixture
def crops(synthetic_root, tmp_path):
    """Three images with masks and five without, as crops."""
    options = semi_options(synthetic_root, tmp_path)
    dataset = load_dataset({"dataset": "voc", "root": synthetic_root, "split": "train"})
    masked = frozenset(record.id for record in dataset.records[:3])
    views = LabelledCrops(dataset, masked, None, options)
    return views.of(dataset.records[:3]), views.of(dataset.records[3:])


def test_every_epoch_sees_all_images_and_masks_are_taken_in_turn(crops):
    samples = PairedCrops(*crops, Wanted(weak=True, strong=2, cutmix=1.0), 0, 2)
    assert len(samples) == 5
    names = [samples[epoch, index]["masked_id"] for epoch in range(3) for index in range(5)]
    for start in range(0, 15, 3):
        assert len(set(names[start : start + 3])) == 3
    assert names[:3] != names[3:6] or names[3:6] != names[6:9]
    assert {samples[0, index]["other_id"] for index in range(5)} == {record.id for record in crops[1].records}


def test_a_sample_is_always_the_same_and_holds_what_is_asked_for(crops):
    samples = PairedCrops(*crops, Wanted(weak=True, strong=2, cutmix=1.0), 0, 2)
    first, again = samples[1, 2], samples[1, 2]
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert first["strong"].shape == (2, 32, 32, 3)
    assert first["regions"].shape == (2, 2, 2)
    assert first["regions"].any(axis=(1, 2)).all()
    assert first["partner"].shape == (32, 32, 3)
    assert not np.array_equal(first["partner"], first["weak"])
    assert set(np.unique(first["weak_labels"])) == {255}
    plain = PairedCrops(*crops, Wanted(weak=True, strong=1, cutmix=0.0), 0, 2)[1, 2]
    assert {"partner", "regions"} & plain.keys() == set()
    masks = PairedCrops(*crops, Wanted(weak=False, strong=0, cutmix=0.5), 0, 2)[1, 2]
    assert masks.keys() == {"id", "masked_id", "image", "labels"}
    np.testing.assert_array_equal(masks["image"], first["image"])  # the same views of masks, whatever the method


def test_a_share_of_the_views_is_mixed(crops):
    samples = PairedCrops(*crops, Wanted(weak=True, strong=4, cutmix=0.5), 0, 2)
    found = np.stack([samples[epoch, index]["regions"] for epoch in range(4) for index in range(5)])
    assert 0.3 < found.any(axis=(2, 3)).mean() < 0.7


def test_one_image_is_its_own_partner(crops):
    few, others = crops
    samples = PairedCrops(few, others.of(others.records[:1]), Wanted(weak=True, strong=1, cutmix=1.0), 0, 2)
    np.testing.assert_array_equal(samples[0, 0]["partner"], samples[0, 0]["weak"])
