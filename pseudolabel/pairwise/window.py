"""The Gaussian kernel cut off outside a square window: k_ij where both offsets are at most r, else 0.

This is the kernel of the gated CRF loss (Obukhov et al. 2019, arXiv 1906.04651). Its pairs are visited one offset at a
time, and each pair once, since k_ij = k_ji: memory is a few maps for any radius, where unfolding takes (2r + 1)^2 of
them. Gradients visit the same offsets and make the kernel again. With g the gradient that arrives and v the maps, the
gradient with respect to the maps is the same filter, and that with respect to the features is

    sum_j k_ij (g_i . v_j + v_i . g_j) (f_j - f_i).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[slice, slice]


@torch.library.custom_op("pseudolabel::window_filter", mutates_args=())
def window_filter(features: Tensor, maps: Tensor, radius: int) -> Tensor:
    """A @ S with the windowed kernel; a pixel is its own neighbour, with k_ii = 1.

    Args:
        features: float32 or float64 (B, D, H, W), finite, divided by their widths.
        maps: (B, K, H, W), of the features' type.
        radius: r, pixels.

    Returns:
        (B, K, H, W), of the same type. Differentiable in features and maps.
    """
    filtered = maps.clone(memory_format=torch.contiguous_format)
    for here, there, weights in _pairs(features, radius):
        filtered[:, :, *here].addcmul_(weights, maps[:, :, *there])
        filtered[:, :, *there].addcmul_(weights, maps[:, :, *here])
    return filtered


@torch.library.custom_op("pseudolabel::window_feature_gradient", mutates_args=())
def window_feature_gradient(features: Tensor, maps: Tensor, arriving: Tensor, radius: int) -> Tensor:
    """The gradient of ``window_filter`` with respect to its features.

    Args:
        features: float32 or float64 (B, D, H, W).
        maps: (B, K, H, W), of the features' type.
        arriving: (B, K, H, W), the gradient with respect to the filtered maps.
        radius: r, pixels.

    Returns:
        (B, D, H, W).
    """
    gradient = torch.zeros_like(features, memory_format=torch.contiguous_format)
    for here, there, weights in _pairs(features, radius):
        slope = (arriving[:, :, *here] * maps[:, :, *there]).sum(dim=1, keepdim=True)
        slope += (arriving[:, :, *there] * maps[:, :, *here]).sum(dim=1, keepdim=True)
        pull = weights * slope * (features[:, :, *there] - features[:, :, *here])
        gradient[:, :, *here] += pull
        gradient[:, :, *there] -= pull
    return gradient


def _pairs(features: Tensor, radius: int) -> Iterator[tuple[Place, Place, Tensor]]:
    """Every pair of different pixels within the window, once: where both lie, and their k, (B, 1, h, w)."""
    height, width = features.shape[2:]
    for down in range(min(radius, height - 1) + 1):
        for right in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            if down == 0 and right <= 0:
                continue
            left = max(0, -right)
            size = (height - down, width - abs(right))
            here = slice(0, size[0]), slice(left, left + size[1])
            there = slice(down, height), slice(left + right, left + right + size[1])
            distance = (features[:, :, *here] - features[:, :, *there]).square().sum(dim=1, keepdim=True)
            yield here, there, torch.exp(distance / -2)


@window_filter.register_fake
def _(features: Tensor, maps: Tensor, radius: int) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


@window_feature_gradient.register_fake
def _(features: Tensor, maps: Tensor, arriving: Tensor, radius: int) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    features, maps, ctx.radius = inputs
    ctx.save_for_backward(features, maps)


def _backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    features, maps = ctx.saved_tensors
    wants_features, wants_maps, _ = ctx.needs_input_grad
    return (
        window_feature_gradient(features, maps, arriving, ctx.radius) if wants_features else None,
        window_filter(features, arriving, ctx.radius) if wants_maps else None,
        None,
    )


window_filter.register_autograd(_backward, setup_context=_keep)
