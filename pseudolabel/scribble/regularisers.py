"""The regularisers by name, all called alike: photographs, shares, mask of what is inside, embedding, to a scalar.

Each is the mean over images, so that what parts of a batch give, times their share of its images, sums to the whole's.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pseudolabel.pairwise.loss_modules import (
    GATED_CRF,
    RELEASED,
    Bilateral,
    DenseCrfLoss,
    GatedCrfLoss,
    KernelCut,
    NormalisedCut,
)
from pseudolabel.scribble.kernel import DYNAMIC, DynamicLoss

Name = Literal["none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr"]

OWN = {"gated-crf": GATED_CRF, "dfr": DYNAMIC}
"""The kernels of those regularisers that have not the released one."""

_DENSE = {"densecrf": DenseCrfLoss, "normalised-cut": NormalisedCut}
_PUBLISHED_CROP = 513  # pixels: the side of the views that the DenseCRF loss's weight was published with


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


def default_weight(name: Name, crop: int) -> float:
    """The weight that a regulariser is published with, or ours: 0 for ``none``.

    The DenseCRF loss's 2e-9 belongs to views of 513 pixels. The loss is a sum over pairs of pixels, whose number grows
    with the fourth power of the side, so its weight falls with that power. [ours] The normalised cut's, 0.1, was chosen
    on a part of a training set (benchmarks/README.md): with 1, classes appear that are not there. [ours]

    Args:
        name: Of ``Name``.
        crop: Side of a training view, pixels.
    """
    cuts = {"normalised-cut": 0.1, "kernel-cut": 0.1}
    known = {"densecrf": 2e-9 * (_PUBLISHED_CROP / crop) ** 4, **cuts, "gated-crf": 0.1, "dfr": 1.0}
    return known.get(name, 0.0)


def build_regulariser(
    name: Name,
    *,
    weight: float | None = None,
    crop: int = _PUBLISHED_CROP,
    bilateral: Bilateral | None = None,
    sigma: float | None = 0.5,
) -> Regulariser | None:
    """The regulariser of a name, by default with the weights and widths that it is published with; None for ``none``.

    Args:
        name: Of ``Name``.
        weight: Of the loss; of ``kernel-cut`` that of its normalised cut, and its DenseCRF loss has its own weight
            times this one over the default. None: ``default_weight``.
        crop: Side of a training view, pixels.
        bilateral: Widths in position and colour, scale and backend; None: the regulariser's own.
        sigma: Width of ``dfr`` in the embedding; None: its kernel is of position and colour alone.

    Raises:
        ValueError: The name is unknown.
    """
    weight = default_weight(name, crop) if weight is None else weight
    kernel = bilateral or OWN.get(name, RELEASED)
    if name == "none":
        return None
    if name == "kernel-cut":
        crf_weight = weight / default_weight(name, crop) * default_weight("densecrf", crop)
        return Regulariser(KernelCut(weight=weight, crf_weight=crf_weight, bilateral=kernel))
    if name in _DENSE:
        return Regulariser(_DENSE[name](weight=weight, bilateral=kernel))
    if name == "gated-crf":
        return _Gated(GatedCrfLoss(weight=weight, bilateral=kernel))
    if name == "dfr":
        if sigma is None:
            return Regulariser(DynamicLoss(weight=weight, bilateral=kernel))
        return _Dynamic(DynamicLoss(weight=weight, bilateral=kernel, sigma=sigma))
    raise ValueError(f"regulariser must be one of none, {', '.join(_DENSE)}, kernel-cut, gated-crf, dfr, found {name}")
