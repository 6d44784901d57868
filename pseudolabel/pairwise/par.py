"""Pixel-adaptive refinement (PAR): each pixel takes the mean of its neighbours' probabilities, weighted by likeness.

Neighbours are the 8 directions at several distances. With I the image, s its standard deviation over a pixel's
neighbours and |n| the length of an offset,

    k_n = softmax_n(-mean over channels of (|I_n - I| / s / 0.3)^2) + 0.01 softmax_n(-(|n| / std(|n|) / 0.3)^2),

and maps become the sum of k_n times the neighbours' maps, as often as asked for. Weights divide by the standard
deviation, so that contrast does not matter. From AFA (Ru et al. 2022, arXiv 2203.02664), also in ToCo and CoSA.
[code: par] [ours] weights are divided by 1.01, so that probabilities
still sum to 1; no label changes by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import hypot

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDTH = 0.3  # of both softmaxes, in standard deviations
_PLACE = 0.01  # the share of the softmax over places
_LEAST = 1e-8  # standard deviation of neighbours that are all alike
_DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def refine_adaptively(images: Tensor, maps: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """PAR of images of one size.

    Args:
        images: float (B, 3, H, W), any range.
        maps: float32 (B, K, H, W), of any kind: each is refined by itself.
        dilations: Distances of the neighbours, pixels; beyond an edge they are its pixels.
        iterations: How often.

    Returns:
        float32 (B, K, H, W), each value within the range of its map.
    """
    weights = neighbour_weights(images, dilations)
    for _ in range(iterations):
        refined = torch.zeros_like(maps)
        for weight, neighbours in zip(weights, _neighbours(maps, dilations), strict=True):
            refined.addcmul_(weight, neighbours)
        maps = refined
    return maps


def neighbour_weights(images: Tensor, dilations: Sequence[int]) -> Tensor:
    """What each neighbour of a pixel weighs.

    Args:
        images: float (B, 3, H, W).
        dilations: Distances of the neighbours, pixels.

    Returns:
        float32 (N, B, 1, H, W) for the 8 neighbours at the first distance, row by row, then at the next; sums to 1.
    """
    images = images.float()
    count = 8 * len(dilations)
    mean = torch.zeros_like(images)
    for neighbours in _neighbours(images, dilations):
        mean += neighbours / count
    variance = torch.zeros_like(images)
    for neighbours in _neighbours(images, dilations):
        variance += (neighbours - mean).square_()
    scale = 1 / (_WIDTH * ((variance / (count - 1)).sqrt_() + _LEAST))
    weights = images.new_empty(count, len(images), 1, *images.shape[2:])
    for weight, neighbours in zip(weights, _neighbours(images, dilations), strict=True):
        torch.mean(((neighbours - images) * scale).square_(), dim=1, keepdim=True, out=weight)
    weights = weights.neg_().softmax(dim=0)
    distances = images.new_tensor([dilation * hypot(*way) for dilation in dilations for way in _DIRECTIONS])
    places = (distances / (_WIDTH * (distances.std() + _LEAST))).square().neg().softmax(dim=0)
    return weights.add_(_PLACE * places[:, None, None, None, None]).div_(1 + _PLACE)


def refine_reduced(images: Tensor, maps: Tensor, dilations: Sequence[int], iterations: int, reduction: int) -> Tensor:
    """PAR on a reduced grid: image and maps are reduced bilinearly, and what is found is enlarged again.

    Args:
        images: float (B, 3, H, W).
        maps: float32 (B, K, H, W).
        dilations: Distances of the neighbours, pixels of the reduced grid.
        iterations: How often.
        reduction: Factor on both sides; 2 in the released codes.

    Returns:
        float32 (B, K, H, W).
    """
    full = images.shape[2:]
    size = [max(1, side // reduction) for side in full]
    small, begun = (F.interpolate(array, size, mode="bilinear", align_corners=False) for array in (images, maps))
    refined = refine_adaptively(small, begun, dilations, iterations)
    return F.interpolate(refined, full, mode="bilinear", align_corners=False)


def memory_of_par(pixels: int, maps: int, dilations: int, reduction: int) -> int:
    """Bytes that PAR of one image takes.

    Args:
        pixels: Of the image.
        maps: Of all its runs.
        dilations: How many distances.
        reduction: Factor on both sides.
    """
    small = pixels // reduction**2
    return 4 * (small * (3 * 8 * dilations + 6 * 3 + 4 * maps) + pixels * (3 + 3 * maps))


def _neighbours(arrays: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The arrays (B, K, H, W) moved so that a pixel holds what its neighbour had, one offset after the other."""
    height, width = arrays.shape[2:]
    for dilation in dilations:
        padded = F.pad(arrays, [dilation] * 4, mode="replicate")
        for down, right in _DIRECTIONS:
            top, left = dilation * (1 + down), dilation * (1 + right)
            yield padded[:, :, top : top + height, left : left + width]
