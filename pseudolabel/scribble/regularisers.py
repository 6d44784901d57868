"""The regularisers by name, all called alike: photographs, shares, mask of what is inside, embedding, to a scalar.

Each is the mean over images, so that what parts of a batch give, times their share of its images, sums to the whole's.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pseudolabel.pairwise.loss_modules import (
    RELEASED,
    Bilateral,
    DenseCrfLoss,
    GatedCrfLoss,
    KernelCut,
    NormalisedCut,
)
from pseudolabel.scribble.kernel import DynamicLoss

Name = Literal["none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr"]

_DENSE = {"densecrf": DenseCrfLoss, "normalised-cut": NormalisedCut, "kernel-cut": KernelCut}


class Regulariser(nn.Module):
    """A regularised loss with a static kernel, which has no use for an embedding."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, photographs: Tensor, shares: Tensor, inside: Tensor | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        """The mean over images.

        Args:
            photographs: uint8 or float (B, 3, H, W), RGB in 0-255, as the network saw them but not normalised.
            shares: float (B, K, H, W), softmax.
            inside: bool (B, H, W), False where a pixel is padding; None: there is none.
            embedding: float (B, D, h, w), of length 1 at every cell; None where the network has no such head.

        Returns:
            A scalar, weighted as the regulariser is published; 0 of no images.
        """
        found: Tensor = self._call(photographs, shares, inside, embedding) if len(shares) else shares.sum()
        return found

    def _call(self, photographs: Tensor, shares: Tensor, inside: Tensor | None, embedding: Tensor | None) -> Tensor:
        found: Tensor = self.loss(photographs, shares, inside)
        return found


class _Gated(Regulariser):
    """The gated CRF loss is a mean over pixels: with padding, images are taken one at a time."""

    def _call(self, photographs: Tensor, shares: Tensor, inside: Tensor | None, embedding: Tensor | None) -> Tensor:
        if inside is None:
            return super()._call(photographs, shares, None, embedding)
        each = [self.loss(photographs[i, None], shares[i, None], inside[i, None]) for i in range(len(shares))]
        return torch.stack(each).mean()


class _Dynamic(Regulariser):
    """DFR's, whose kernel has the embedding in it."""

    def _call(self, photographs: Tensor, shares: Tensor, inside: Tensor | None, embedding: Tensor | None) -> Tensor:
        found: Tensor = self.loss(photographs, shares, inside, embedding)
        return found


def build_regulariser(name: Name, *, bilateral: Bilateral | None = None, sigma: float = 0.5) -> Regulariser | None:
    """The regulariser of a name, with the weights and widths that it is published with; None for ``none``.

    Args:
        name: Of ``Name``.
        bilateral: Widths in position and colour, scale and backend; None: the regulariser's own.
        sigma: Width of ``dfr`` in the embedding.

    Raises:
        ValueError: The name is unknown.
    """
    if name == "none":
        return None
    if name in _DENSE:
        return Regulariser(_DENSE[name](bilateral=bilateral or RELEASED))
    if name == "gated-crf":
        return _Gated(GatedCrfLoss(bilateral=bilateral) if bilateral else GatedCrfLoss())
    if name == "dfr":
        return _Dynamic(DynamicLoss(bilateral=bilateral, sigma=sigma) if bilateral else DynamicLoss(sigma=sigma))
    raise ValueError(f"regulariser must be one of none, {', '.join(_DENSE)}, gated-crf, dfr, found {name}")
