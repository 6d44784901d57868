"""Pixel-adaptive refinement against a slow reference, by hand, and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.pairwise.par import memory_of_par, neighbour_weights, refine_adaptively, refine_reduced


def slow_weights(image: np.ndarray, dilations: list[int]) -> np.ndarray:
    """The formula, pixel by pixel: (N, H, W) of an image (3, H, W)."""
    _, height, width = image.shape
    offsets = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    lengths = np.array([np.hypot(*offset) for offset in offsets])
    place = np.exp(-((lengths / lengths.std(ddof=1) / 0.3) ** 2))
    weights = np.empty((len(offsets), height, width))
    for y in range(height):
        for x in range(width):
            near = [
                image[:, min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
                for down, right in offsets
            ]
            deviation = np.std(near, axis=0, ddof=1)
            alike = np.exp(-np.mean(((near - image[:, y, x]) / (deviation + 1e-8) / 0.3) ** 2, axis=1))
            weights[:, y, x] = (alike / alike.sum() + 0.01 * place / place.sum()) / 1.01
    return weights


def slow_refinement(image: np.ndarray, maps: np.ndarray, dilations: list[int], iterations: int) -> np.ndarray:
    """As often as asked for, each pixel the weighted mean of its neighbours."""
    weights, (_, height, width) = slow_weights(image, dilations), image.shape
    offsets = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    for _ in range(iterations):
        refined = np.zeros_like(maps)
        for weight, (down, right) in zip(weights, offsets, strict=True):
            rows = np.clip(np.arange(height) + down, 0, height - 1)
            columns = np.clip(np.arange(width) + right, 0, width - 1)
            refined += weight * maps[:, rows][:, :, columns]
        maps = refined
    return maps


def made(height: int, width: int, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, height, width), generator=generator).float()
    return images, torch.rand(2, classes, height, width, generator=generator).softmax(dim=1)


@pytest.mark.parametrize(("height", "width", "dilations"), [(9, 7, [1, 2]), (4, 5, [1, 3, 8]), (1, 6, [2])])
def test_it_is_the_formula(height: int, width: int, dilations: list[int]) -> None:
    images, maps = made(height, width)
    weights = neighbour_weights(images, dilations)
    assert weights.shape == (8 * len(dilations), 2, 1, height, width)
    found = refine_adaptively(images, maps, dilations, 3)
    for image in range(2):
        expected = slow_weights(images[image].double().numpy(), dilations)
        np.testing.assert_allclose(weights[:, image, 0].numpy(), expected, atol=2e-6)
        refined = slow_refinement(images[image].double().numpy(), maps[image].double().numpy(), dilations, 3)
        np.testing.assert_allclose(found[image].numpy(), refined, atol=2e-6)


def test_an_image_of_one_colour_by_hand() -> None:
    """All neighbours look alike: 1/8 each by colour; by place at one distance sides weigh more than corners."""
    weights = neighbour_weights(torch.full((1, 3, 3, 3), 90.0), [1])[:, 0, 0, 1, 1]
    lengths = np.array([2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5])
    place = np.exp(-((lengths / (0.2214) / 0.3) ** 2))  # 0.2214: the unbiased deviation of the eight lengths
    np.testing.assert_allclose(weights, (1 / 8 + 0.01 * place / place.sum()) / 1.01, atol=1e-5)


def test_maps_stop_at_an_edge_of_the_image() -> None:
    """Left half black, right half white; one pixel of the left is an object: nothing of it crosses."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 255
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 4, 2] = 1
    found = refine_adaptively(image, maps, [1, 2], 5)[0, 0]
    assert float(found[:, 4:].max()) < 0.001 < 0.03 < float(found[:, :4].max())


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_probabilities_stay_probabilities_and_contrast_does_not_matter(height: int, width: int, seed: int) -> None:
    images, maps = made(height, width, seed=seed)
    found = refine_adaptively(images, maps, [1, 4], 4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, height, width), atol=1e-5, rtol=0)
    assert float(found.min()) >= float(maps.min()) - 1e-6
    assert float(found.max()) <= float(maps.max()) + 1e-6
    torch.testing.assert_close(refine_adaptively(images * 3 + 20, maps, [1, 4], 4), found, atol=1e-4, rtol=0)


def test_an_image_of_a_batch_is_that_image_alone() -> None:
    images, maps = made(10, 13)
    both = refine_reduced(images, maps, [1, 2, 4], 5, 2)
    for image in range(2):
        alone = refine_reduced(images[image : image + 1], maps[image : image + 1], [1, 2, 4], 5, 2)
        torch.testing.assert_close(both[image : image + 1], alone, atol=1e-6, rtol=0)
    padded = torch.cat([maps, torch.zeros(2, 2, 10, 13)], dim=1)
    torch.testing.assert_close(refine_reduced(images, padded, [1, 2, 4], 5, 2)[:, :3], both, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width", "reduction"), [(1, 1, 2), (7, 5, 2), (3, 40, 16), (6, 6, 1)])
def test_any_size_comes_back(height: int, width: int, reduction: int) -> None:
    images, maps = made(height, width)
    found = refine_reduced(images, maps, [1, 24], 2, reduction)
    assert found.shape == maps.shape
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, height, width), atol=1e-5, rtol=0)


def test_memory_grows_with_image_and_distances() -> None:
    assert memory_of_par(10**6, 3, 6, 2) < memory_of_par(10**6, 3, 12, 2) < memory_of_par(10**6, 3, 12, 1)
