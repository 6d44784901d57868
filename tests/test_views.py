"""Training views and network sizes."""

import numpy as np
import pytest

from pseudolabel.data.views import network_size, random_view, resized, round_to


def view_of(image, labels, seed, **settings):
    values = {"crop": 32, "area": (0.3, 1.0), "jitter": 0.3, **settings}
    return random_view(image, labels, np.random.default_rng(seed), **values)


def picture(height=50, width=80):
    """A photograph whose red channel is the label times 10, so that the two can be compared after cutting."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[10:40, 20:60] = 7
    labels[:5] = 255
    image = np.repeat((labels // 10 * 3 + (labels == 7) * 70).astype(np.uint8)[..., None], 3, axis=2)
    return image, labels


def test_the_same_seed_makes_the_same_view_and_another_another():
    image, labels = picture()
    first, second, other = (view_of(image, labels, seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(20))
def test_photograph_and_labels_are_cut_and_mirrored_alike(seed):
    image, labels = picture()
    view, part = view_of(image, labels, seed, jitter=0.0)
    assert view.shape == (32, 32, 3)
    assert part.shape == (32, 32)
    assert set(np.unique(part)) <= {0, 7, 255}
    inside = part == 7
    same = np.abs(view[..., 0].astype(int) - 70) < 36
    assert (same[inside]).mean() > 0.9 if inside.any() else True


def test_a_view_never_leaves_the_image():
    image = np.full((20, 300, 3), 200, dtype=np.uint8)
    for seed in range(30):
        view, _ = view_of(image, None, seed, jitter=0.0)
        assert view.min() == view.max() == 200


def test_a_single_pixel_gives_a_view():
    view, part = view_of(np.full((1, 1, 3), 9, np.uint8), np.full((1, 1), 3, np.uint8), 0, jitter=0.0)
    assert np.all(view == 9)
    assert np.all(part == 3)


def test_network_sizes_keep_the_long_side_and_round_to_the_patch():
    assert network_size(375, 500, 448, 16) == (336, 448)
    assert network_size(500, 375, 448, 16) == (448, 336)
    assert network_size(10, 20000, 448, 16) == (16, 448)
    assert round_to(23.9, 16) == 16
    assert round_to(24.0, 16) == 32


def test_resizing_to_the_same_size_changes_nothing():
    image, _ = picture()
    assert resized(image, (50, 80)) is image
    assert resized(image, (25, 40)).shape == (25, 40, 3)
