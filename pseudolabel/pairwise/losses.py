"""Regularised losses on weak labels: maps should not change where the photograph does not.

S_k is the map of class k as a vector over the N pixels of an image, A a dense kernel (``kernels``), so that S_k^T A S_k
is large where like pixels agree on k. These functions take a kernel and return the plain loss; ``loss_modules`` take
photographs. docs/pairwise.md has all equations.

Kernels are constants here: no gradient reaches their features, except in the gated CRF loss. Losses compute in the
kernel's type, float32 or float64, whatever autocast says. With a constant kernel all take one filter for value and
gradient together, and have no second derivative: A S would be a constant in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pseudolabel.pairwise.kernels import Kernel, WindowKernel


def dense_crf_loss(probabilities: Tensor, kernel: Kernel, *, roi: Tensor | None = None) -> Tensor:
    """The DenseCRF loss, -(1/B) sum_k S_k^T A S_k, whose gradient is -(2/B) A S_k (Tang et al. 2018, arXiv 1803.09569).

    As in the released code the sum is over pixels and the mean over images, hence weights like 2e-9.

    Args:
        probabilities: (B, K, H, W) in [0, 1].
        kernel: Of the B images, H W pixels row by row.
        roi: bool or float (B, H, W): 0 where a pixel is padding and does not count, else 1; None is all ones.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not fit.
    """
    maps, _ = _inside(probabilities, kernel, roi)
    _require_constant(kernel)
    return -_agreement(maps, kernel.filter(maps.detach())).sum() / len(maps)


def gated_dense_energy(
    probabilities: Tensor, kernel: Kernel, *, unlabelled: Tensor, roi: Tensor | None = None
) -> Tensor:
    """The gated dense energy, -(1/B) sum_k S_k^T (G * A S_k), with the released gradient -(2/B) G * A S_k.

    RRM (Zhang et al. 2020, arXiv 1911.08039), ToCo, CoSA. The gate G is 1 on unlabelled pixels and
    max(0, 1 - max_k S_k) on the others, so that pixels that are sure of their label feel nothing. The gradient is the
    released code's, not the derivative of the loss: that would be -(1/B) (G * A S_k + A (G * S_k)), and further terms
    since G depends on S. Both agree where the gate is 1 everywhere.

    Args:
        probabilities: (B, K, H, W) in [0, 1].
        kernel: Of the B images, H W pixels row by row.
        unlabelled: bool (B, H, W).
        roi: bool or float (B, H, W), as in ``dense_crf_loss``; G is max(0, roi - max_k S_k) on labelled pixels.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not fit, or ``unlabelled`` is not bool.
    """
    maps, inside = _inside(probabilities, kernel, roi)
    _require_constant(kernel)
    if unlabelled.dtype != torch.bool:
        raise ValueError(f"unlabelled must be bool, found {unlabelled.dtype}; compare the labels with 255")
    fixed = maps.detach()
    doubt = (inside - fixed.amax(dim=1, keepdim=True)).clamp(min=0)
    gate = torch.where(_as_map("unlabelled", unlabelled, probabilities), 1, doubt)
    return -_agreement(maps, gate * kernel.filter(fixed)).sum() / len(maps)


def normalised_cut(probabilities: Tensor, kernel: Kernel, *, roi: Tensor | None = None) -> Tensor:
    """The normalised cut, K - sum_k (S_k^T A S_k) / (d^T S_k) with d = A 1, mean over images.

    Tang et al. 2018 (arXiv 1804.01346).

    Args:
        probabilities: (B, K, H, W) in [0, 1].
        kernel: Of the B images, H W pixels row by row.
        roi: bool or float (B, H, W), as in ``dense_crf_loss``; d counts pixels inside only. [ours]

    Returns:
        A scalar in [0, K]; a class without any pixel adds 1 and has no gradient.

    Raises:
        ValueError: Shapes do not fit.
    """
    agreement, degree = _agreement_and_degree(probabilities, kernel, roi)
    return _cut(agreement, degree)


def kernel_cut(
    probabilities: Tensor, kernel: Kernel, *, cut_weight: float, crf_weight: float, roi: Tensor | None = None
) -> Tensor:
    """The kernel cut, ``cut_weight`` x normalised cut + ``crf_weight`` x DenseCRF loss with one filter for both.

    Tang et al. 2018 (arXiv 1803.09569); the weights are ours.

    Args:
        probabilities: (B, K, H, W) in [0, 1].
        kernel: Of the B images, H W pixels row by row.
        cut_weight: Of the normalised cut.
        crf_weight: Of the DenseCRF loss.
        roi: bool or float (B, H, W), as in ``dense_crf_loss``.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not fit.
    """
    agreement, degree = _agreement_and_degree(probabilities, kernel, roi)
    return cut_weight * _cut(agreement, degree) - crf_weight * agreement.sum() / len(agreement)


def disagreement(probabilities: Tensor, kernel: Kernel, *, roi: Tensor | None = None) -> Tensor:
    """How often like pixels differ in class, 1 - sum_k S_k^T A S_k / 1^T A 1, mean over images.

    The DenseCRF loss made free of scale: by how many pixels there are and by how strongly the kernel ties them. [ours]
    A kernel that changes during training needs that, or its weight would change with it.

    Args:
        probabilities: (B, K, H, W) in [0, 1], summing to 1 over K.
        kernel: Of the B images, H W pixels row by row.
        roi: bool or float (B, H, W), as in ``dense_crf_loss``.

    Returns:
        A scalar in [0, 1]: the chance that two pixels of an image, drawn with probabilities like A, have different
        classes; 1, without gradient, for an image that has no pixel inside.

    Raises:
        ValueError: Shapes do not fit.
    """
    agreement, degree = _agreement_and_degree(probabilities, kernel, roi)
    total = degree.detach().sum(dim=1)  # 1^T A 1, whatever S is
    return (1 - agreement.sum(dim=1) / torch.where(total > 0, total, 1)).mean()


def gated_crf_loss(probabilities: Tensor, kernel: WindowKernel, *, roi: Tensor | None = None) -> Tensor:
    """The gated CRF loss: the mean over pixels i of sum_{j != i} k_ij (1 - sum_c S_ic S_jc) (arXiv 1906.04651).

    Differentiable in the kernel's features too.

    Args:
        probabilities: (B, K, H, W) in [0, 1], summing to 1 over K.
        kernel: Of the B images, H W pixels row by row.
        roi: bool or float (B, H, W): 0 where a pixel counts neither as i nor as j, else 1; None is all ones.

    Returns:
        A scalar; 0 where no pixel is inside.

    Raises:
        ValueError: Shapes do not fit.
    """
    maps, inside = _inside(probabilities, kernel, roi)
    stacked = torch.cat([inside, maps], dim=1)
    if kernel.features.requires_grad:
        together = (stacked * kernel.filter(stacked)).sum(dim=2)
    else:  # the gradient needs no filter of its own
        together = _agreement(stacked, kernel.filter(stacked.detach()))
    pairs = (together - stacked.square().sum(dim=2)).sum(dim=0)  # less j = i, where k is 1
    return (pairs[0] - pairs[1:].sum()) / inside.sum().clamp(min=1)


class _Agreement(torch.autograd.Function):
    """S^T A S of every map from S and A S, with the gradient 2 A S of a symmetric A."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, filtered: Tensor) -> Tensor:
        ctx.save_for_backward(filtered)
        return (maps * filtered).sum(dim=2)

    @staticmethod
    @once_differentiable  # a second derivative is an error instead of a wrong one
    def backward(ctx: Any, *arriving: Tensor) -> tuple[Tensor, None]:
        (filtered,) = ctx.saved_tensors
        return 2 * filtered * arriving[0][:, :, None], None


def _agreement(maps: Tensor, filtered: Tensor) -> Tensor:
    """S_k^T A S_k: (B, K) of maps and filtered maps (B, K, N), the filtered ones without gradient."""
    agreement: Tensor = _Agreement.apply(maps, filtered)
    return agreement


def _agreement_and_degree(probabilities: Tensor, kernel: Kernel, roi: Tensor | None) -> tuple[Tensor, Tensor]:
    """S_k^T A S_k and d^T S_k, each (B, K), by one filter."""
    maps, inside = _inside(probabilities, kernel, roi)
    _require_constant(kernel)
    filtered = kernel.filter(torch.cat([inside, maps.detach()], dim=1))
    return _agreement(maps, filtered[:, 1:]), (filtered[:, :1] * maps).sum(dim=2)


def _cut(agreement: Tensor, degree: Tensor) -> Tensor:
    """K - sum of S^T A S / d^T S, mean over images; an empty map has nothing that agrees."""
    return (1 - agreement / torch.where(degree > 0, degree, 1)).sum(dim=1).mean()


def _inside(probabilities: Tensor, kernel: Kernel, roi: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maps (B, K, N), zero outside the region, and the region (B, 1, N), in the kernel's type."""
    batch, points, _ = kernel.features.shape
    if probabilities.ndim != 4 or probabilities.shape[0] != batch or probabilities.shape[2:].numel() != points:
        raise ValueError(
            f"probabilities must be (B, K, H, W) with B = {batch} and H W = {points} as the kernel has, "
            f"found {tuple(probabilities.shape)}"
        )
    if not probabilities.shape[1]:
        raise ValueError("probabilities must hold at least one class, found 0")
    maps = probabilities.flatten(2).to(kernel.features.dtype)
    if roi is None:
        return maps, torch.ones_like(maps[:, :1])
    inside = _as_map("roi", roi, probabilities).to(maps.dtype)
    return maps * inside, inside


def _as_map(name: str, mask: Tensor, probabilities: Tensor) -> Tensor:
    """A mask (B, H, W) as (B, 1, N)."""
    wanted = (probabilities.shape[0], *probabilities.shape[2:])
    if mask.shape != wanted:
        raise ValueError(f"{name} must be {tuple(wanted)}, found {tuple(mask.shape)}")
    if name == "roi" and mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"roi must be bool or float in [0, 1], found {mask.dtype}; compare it with 0")
    return mask.flatten(1)[:, None]


def _require_constant(kernel: Kernel) -> None:
    if kernel.features.requires_grad:
        raise ValueError("this loss gives the kernel's features no gradient; detach them, or use kernel.filter")
