"""DFR's dynamic kernel (arXiv 2108.01296): in position, colour and the embedding of the consistency head.

    k_ij = exp(-|p_i - p_j|^2 / (2 s_xy^2) - |I_i - I_j|^2 / (2 s_rgb^2) - |h_i - h_j|^2 / (2 s_h^2))

The embedding is the one of the same forward pass, so the kernel is as new as the network, and detached, so that the
network cannot lower the loss by moving pixels apart. [paper: the idea] [ours: widths, scale, and the loss's form]
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.cosa.losses import resized
from pseudolabel.pairwise.features import as_features
from pseudolabel.pairwise.kernels import Kernel, WindowKernel, build_kernel
from pseudolabel.pairwise.loss_modules import Bilateral, BilateralLoss, small_mask
from pseudolabel.pairwise.losses import disagreement

DYNAMIC = Bilateral(sigma_xy=100, sigma_rgb=15, scale=0.25, backend="exact")
"""The widths of the released losses, on maps so small that exact sums are quick; with an embedding's dimensions pixels
are sparser than the lattice likes."""


def dynamic_features(shallow: Tensor, embedding: Tensor, size: tuple[int, int], *, sigma: float) -> Tensor:
    """Features of the dynamic kernel.

    Args:
        shallow: (B, H W, 5), of ``position_colour``.
        embedding: float (B, D, h, w), of length 1 at every cell; between cells it is interpolated and gets shorter.
        size: H and W.
        sigma: s_h. With 0.5 orthogonal embeddings have k = exp(-4) = 0.02.

    Returns:
        (B, H W, 5 + D), without gradient.
    """
    deep = resized(embedding.detach(), torch.Size(size))
    return torch.cat([shallow, as_features(deep, sigma)], dim=2)


class DynamicLoss(BilateralLoss):
    """``weight`` times ``pairwise.losses.disagreement`` under the dynamic kernel.

    Args:
        weight: Of the loss, which lies in [0, 1].
        bilateral: Widths in position and colour, and the maps' scale.
        sigma: s_h, the embedding's width.
        radius: Only pixels of the scaled maps whose rows and columns are at most so far apart are tied; None: all are.
    """

    def __init__(
        self, *, weight: float = 1, bilateral: Bilateral = DYNAMIC, sigma: float = 0.5, radius: int | None = None
    ) -> None:
        super().__init__(weight, bilateral)
        self.sigma = sigma
        self.radius = radius

    def forward(
        self, image: Tensor, probabilities: Tensor, roi: Tensor | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        """The weighted loss; without an embedding the kernel is the shallow one."""
        maps, features = self.small(image, probabilities)
        size = (maps.shape[2], maps.shape[3])
        if embedding is not None:
            features = dynamic_features(features, embedding, size, sigma=self.sigma)
        kernel: Kernel
        if self.radius is None:
            kernel = build_kernel(features, self.bilateral.backend)
        else:
            kernel = WindowKernel(features, size, radius=self.radius)
        return self.weight * disagreement(maps, kernel, roi=small_mask(roi, image, maps))
