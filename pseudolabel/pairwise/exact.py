"""The Gaussian kernel's exact product with maps, in O(N^2) time and bounded memory, on any device.

With features f divided by their widths, A_ij = exp(-|f_i - f_j|^2 / 2) = exp(f_i . f_j - |f_i|^2 / 2 - |f_j|^2 / 2):
the exponential of a product with a bias, as in attention, but without its normalisation. Rows of A are made in chunks,
used and forgotten. On a CUDA device with Triton installed one fused kernel does it instead (``triton_filter``).

A is symmetric, so the gradient with respect to the maps is the same filter. With g the gradient that arrives and v the
maps, the gradient with respect to the features is

    sum_j A_ij (g_i . v_j + v_i . g_j) (f_j - f_i),

made from the same chunks. Both are custom operators, which ``torch.compile`` takes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from pseudolabel.runtime.devices import wide_dtype

CHUNK_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
"""Bytes of A that are made at a time, or one row of A where that is longer. At most five times as much is alive."""

_LARGEST_LOSS = 1e-4  # in the exponent; where float32 would lose more, the product is taken in float64
_LEAST_EXPONENT = {torch.float32: -80.0, torch.float64: -700.0}  # below, exp is denormal and 100 times slower


@torch.library.custom_op("pseudolabel::exact_filter", mutates_args=())
def exact_filter(features: Tensor, maps: Tensor) -> Tensor:
    """A @ S by summing over all pairs of pixels.

    Args:
        features: float32 or float64 (B, N, D), finite, divided by their widths.
        maps: (B, K, N), of the features' type.

    Returns:
        (B, K, N), of the same type. Differentiable in both arguments.
    """
    if features.is_cuda and features.dtype == torch.float32 and _has_triton():
        from pseudolabel.pairwise.triton_filter import triton_filter

        return triton_filter(features, maps)
    filtered = torch.empty_like(maps, memory_format=torch.contiguous_format)
    with torch.autocast(maps.device.type, enabled=False):
        for image, points in enumerate(features):
            for rows, weights in _rows_of_kernel(points):
                filtered[image, :, rows] = maps[image] @ weights.mT
    return filtered


@torch.library.custom_op("pseudolabel::exact_feature_gradient", mutates_args=())
def exact_feature_gradient(features: Tensor, maps: Tensor, arriving: Tensor) -> Tensor:
    """The gradient of ``exact_filter`` with respect to its features.

    Args:
        features: float32 or float64 (B, N, D).
        maps: (B, K, N), of the features' type.
        arriving: (B, K, N), the gradient with respect to the filtered maps.

    Returns:
        (B, N, D).
    """
    gradient = torch.empty_like(features, memory_format=torch.contiguous_format)
    with torch.autocast(maps.device.type, enabled=False):
        for image, points in enumerate(features):
            centred = points - points.mean(dim=0)
            values = torch.cat([maps[image], arriving[image]])
            turned = torch.cat([arriving[image], maps[image]])
            for rows, weights in _rows_of_kernel(points):
                weights *= turned[:, rows].mT @ values
                gradient[image, rows] = weights @ centred - weights.sum(dim=1, keepdim=True) * centred[rows]
    return gradient


def exact_row_sums(points: Tensor, chosen: Tensor) -> Tensor:
    """Sums of some rows of A: (R,) for the features (N, D) of one image and the indices (R,) of the rows."""
    with torch.autocast(points.device.type, enabled=False):
        return torch.cat([weights.sum(dim=1) for _, weights in _rows_of_kernel(points, chosen)])


def _rows_of_kernel(points: Tensor, chosen: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Rows of A, all or the chosen ones, for the features (N, D) of one image, a chunk (R, N) at a time."""
    centred = points - points.mean(dim=0)
    loss = float(centred.square().sum(dim=1).max()) * torch.finfo(points.dtype).eps
    if loss > _LARGEST_LOSS or points.device.type != "cpu":  # GPUs multiply float32 in TF32 if torch was told so
        exact = points.to(torch.promote_types(points.dtype, wide_dtype(points.device)))
        centred = exact - exact.mean(dim=0)
    bias = centred.square().sum(dim=1, keepdim=True) / -2
    ones = torch.ones_like(bias)
    left = torch.cat([centred, bias, ones], dim=1)
    right = torch.cat([centred, ones, bias], dim=1).mT.contiguous()
    left = left if chosen is None else left[chosen]
    step = max(1, CHUNK_BYTES.get(points.device.type, CHUNK_BYTES["cuda"]) // (len(points) * points.element_size()))
    for first in range(0, len(left), step):
        rows = slice(first, first + step)
        exponent = (left[rows] @ right).to(points.dtype)
        yield rows, exponent.clamp_(_LEAST_EXPONENT[points.dtype], 0).exp_()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@exact_filter.register_fake
def _(features: Tensor, maps: Tensor) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


@exact_feature_gradient.register_fake
def _(features: Tensor, maps: Tensor, arriving: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, maps = ctx.saved_tensors
    wants_features, wants_maps = ctx.needs_input_grad
    return (
        exact_feature_gradient(features, maps, arriving) if wants_features else None,
        exact_filter(features, arriving) if wants_maps else None,
    )


exact_filter.register_autograd(_backward, setup_context=_keep)
