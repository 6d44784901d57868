"""Training views and network sizes."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pseudolabel.data.augmentation import (
    Part,
    blurred,
    crop_map,
    crop_of,
    crop_scribbles,
    network_size,
    random_crop,
    random_part,
    recoloured,
    resized,
    round_to,
    scaled_crop,
)


def seen(image, labels, seed, **settings):
    values = {"crop": 32, "area": (0.3, 1.0), "jitter": 0.3, **settings}
    return random_crop(image, labels, np.random.default_rng(seed), **values)


def picture(height=50, width=80):
    """A photograph whose red channel is the label times 10, so that the two can be compared after cutting."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[10:40, 20:60] = 7
    labels[:5] = 255
    image = np.repeat((labels // 10 * 3 + (labels == 7) * 70).astype(np.uint8)[..., None], 3, axis=2)
    return image, labels


def test_the_same_seed_makes_the_same_view_and_another_another():
    image, labels = picture()
    first, second, other = (seen(image, labels, seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(20))
def test_photograph_and_labels_are_cut_and_mirrored_alike(seed):
    image, labels = picture()
    view, part = seen(image, labels, seed, jitter=0.0)
    assert view.shape == (32, 32, 3)
    assert part.shape == (32, 32)
    assert set(np.unique(part)) <= {0, 7, 255}
    inside = part == 7
    same = np.abs(view[..., 0].astype(int) - 70) < 36
    assert (same[inside]).mean() > 0.9 if inside.any() else True


def test_a_view_never_leaves_the_image():
    image = np.full((20, 300, 3), 200, dtype=np.uint8)
    for seed in range(30):
        view, _ = seen(image, None, seed, jitter=0.0)
        assert view.min() == view.max() == 200


def test_a_single_pixel_gives_a_view():
    view, part = seen(np.full((1, 1, 3), 9, np.uint8), np.full((1, 1), 3, np.uint8), 0, jitter=0.0)
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


def test_a_scaled_view_shows_the_image_at_one_of_the_scales_and_says_what_is_padding():
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    for seed in range(40):
        view, inside = scaled_crop(image, np.random.default_rng(seed), crop=32, scales=(0.5, 2.0), jitter=0.0)
        assert view.shape == (32, 32, 3)
        assert (view[inside] == 200).all()
        assert (view[~inside] == (0, 0, 0)).all()
        rows, columns = inside.any(axis=1), inside.any(axis=0)
        assert np.array_equal(inside, rows[:, None] & columns)  # one rectangle
        assert 10 <= rows.sum() <= 32
        assert 15 <= columns.sum() <= 32
        assert rows.sum() == 32 or columns.sum() == 32 or abs(columns.sum() / rows.sum() - 1.5) < 0.12


def test_a_scaled_image_has_its_sides_rounded_down():
    """As in CoSA's released code: 21 x 31 at half the size are 10 x 15."""
    image = np.full((21, 31, 3), 200, dtype=np.uint8)
    inside = scaled_crop(image, np.random.default_rng(0), crop=32, scales=(0.5, 0.5), jitter=0.0)[1]
    assert (inside.any(axis=1).sum(), inside.any(axis=0).sum()) == (10, 15)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_scaled_view_is_a_cut_of_the_scaled_image(scale):
    """A ramp in x and y tells where each pixel of a view comes from: steps of 1 / scale, and the border at 0."""
    ramp = np.stack([*np.meshgrid(np.arange(64) * 2, np.arange(64) * 2), np.zeros((64, 64))], axis=2).astype(np.uint8)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        view, inside = scaled_crop(ramp, rng, crop=48, scales=(scale, scale), jitter=0.0)
        part = view[inside].reshape(inside.any(axis=1).sum(), -1, 3).astype(float)
        steps = np.diff(part[..., 0], axis=1)[:, 2:-2].mean()
        assert abs(abs(steps) - 2 / scale) < 0.15
        assert abs(np.diff(part[..., 1], axis=0)[2:-2].mean() - 2 / scale) < 0.15


def test_a_scaled_view_at_scale_one_that_fits_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    found = [
        scaled_crop(image, np.random.default_rng(seed), crop=24, scales=(1.0, 1.0), jitter=0.0)[0] for seed in range(9)
    ]
    assert all(np.array_equal(view, image) or np.array_equal(view, image[:, ::-1]) for view in found)
    assert any(np.array_equal(view, image[:, ::-1]) for view in found)


def test_an_operation_moves_no_pixel_and_is_drawn_by_the_seed():
    image, _ = picture()
    image[10:40, 20:60, 1] = 200
    results = [recoloured(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in results)
    assert np.array_equal(results[7], recoloured(image, np.random.default_rng(7)))
    for view in results:  # a flat region away from its border stays flat: nothing was shifted or turned
        assert np.ptp(view[20:30, 30:50].reshape(-1, 3), axis=0).max() == 0
    assert len({view.tobytes() for view in results}) > 20


def test_the_operations_have_the_strengths_of_the_released_code():
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    pil = Image.fromarray(image)

    class Drawn:
        """A generator that draws what it was told to."""

        def __init__(self, *numbers):
            self.numbers = list(numbers)

        def integers(self, *bounds):
            number = self.numbers.pop(0)
            low, high = bounds if len(bounds) == 2 else (0, bounds[0])
            assert low <= number < high
            return number

    bits = [4, 4, 3, 3, 2, 2, 2, 1, 1]
    for magnitude in range(1, 10):
        threshold = magnitude * 256 // 10
        expected = {
            0: image,
            1: np.asarray(ImageOps.autocontrast(pil)),
            2: np.asarray(ImageOps.equalize(pil)),
            3: image & (0xFF << (8 - bits[magnitude - 1]) & 0xFF),
            4: np.where(image < threshold, image, 255 - image),
            5: np.asarray(ImageEnhance.Brightness(pil).enhance(0.1 + 0.18 * magnitude)),
            6: np.asarray(ImageEnhance.Contrast(pil).enhance(0.1 + 0.18 * magnitude)),
            7: np.asarray(ImageEnhance.Color(pil).enhance(0.1 + 0.18 * magnitude)),
            8: np.asarray(ImageEnhance.Sharpness(pil).enhance(0.1 + 0.18 * magnitude)),
        }
        for operation, wanted in expected.items():
            found = recoloured(image, Drawn(operation, magnitude))
            assert np.abs(found.astype(int) - wanted).max() <= 1, (operation, magnitude)  # a factor rounds otherwise


def test_blur_is_drawn_with_its_probability():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    changed = [not np.array_equal(blurred(image, np.random.default_rng(seed), 0.5), image) for seed in range(200)]
    assert 60 < sum(changed) < 140
    assert np.array_equal(blurred(image, np.random.default_rng(0), 0.0), image)


def test_a_view_is_its_part_of_photograph_and_map():
    image, labels = picture()
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    view, cut = random_crop(image, labels, rng, crop=32, area=(0.3, 1.0), jitter=0.3)
    part = random_part((50, 80), again, (0.3, 1.0))
    assert np.array_equal(view, crop_of(image, part, again, crop=32, jitter=0.3))
    assert np.array_equal(cut, crop_map(labels, part, 32))


def test_maps_are_cut_and_mirrored_by_hand():
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert crop_map(labels, Part(2, 0, 4, 2), 2).tolist() == [[2, 3], [6, 7]]
    assert crop_map(labels, Part(2, 0, 4, 2, mirrored=True), 2).tolist() == [[3, 2], [7, 6]]
    slope = np.tile(np.float32([0, 1, 2, 3]), (4, 1))
    assert crop_map(slope, Part(0, 0, 4, 4, mirrored=True), 4).tolist() == slope[:, ::-1].tolist()


def test_a_thin_scribble_is_not_lost_and_none_is_made_up():
    labels = np.full((90, 90), 255, np.uint8)
    labels[29, 5:85] = 2
    labels[70:79, 9:18] = 0
    whole = Part(0, 0, 90, 90)
    assert (crop_map(labels, whole, 10)[3] == 255).all()  # the row's nearest pixel is beside the stroke
    view = crop_scribbles(labels, whole, 10)
    assert view[3].tolist() == [2] * 10
    assert np.argwhere(view == 0).tolist() == [[7, 1], [8, 1]]
    assert (view != 255).sum() == 12
    mirrored = crop_scribbles(labels, whole._replace(mirrored=True), 10)
    assert np.array_equal(mirrored, view[:, ::-1])
    cut = crop_scribbles(labels, Part(0, 40, 90, 85), 5)
    assert (cut != 2).all()


@pytest.mark.parametrize("seed", range(10))
def test_scribbles_and_plain_maps_agree_where_both_are_labelled(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.uint8([0, 1, 255, 255, 255]), size=(37, 53))
    part = random_part((37, 53), rng, (0.3, 1.0))
    plain, view = crop_map(labels, part, 16), crop_scribbles(labels, part, 16)
    assert np.array_equal(view[plain != 255], plain[plain != 255])
    assert (view != 255).sum() >= (plain != 255).sum()
    large = crop_scribbles(labels, part, 128)
    assert np.array_equal(large, crop_map(labels, part, 128))  # enlarged, every pixel has a nearest one
