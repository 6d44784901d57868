"""The losses of ``losses`` as modules: photographs and maps go in, both are scaled down, the kernel is built, weighted.

Photograph, maps and masks have one size. As in the released code maps are scaled bilinearly, photographs and masks by
taking the nearest pixel, and widths in position shrink with the scale, so that they are pixels of the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.pairwise.features import as_float, position_colour, require_width
from pseudolabel.pairwise.kernels import Backend, Kernel, WindowKernel, build_kernel
from pseudolabel.pairwise.losses import (
    dense_crf_loss,
    gated_crf_loss,
    gated_dense_energy,
    kernel_cut,
    normalised_cut,
)
from pseudolabel.runtime.resizing import resize


@dataclass(frozen=True)
class Bilateral:
    """A kernel in position and colour over all pixels. The defaults are those of the released losses.

    Attributes:
        sigma_xy: Width in position, pixels of the photograph.
        sigma_rgb: Width in colour, grey levels of 0-255.
        scale: Size of the maps that are filtered over the photograph's, in (0, 1].
        backend: Of ``kernels.build_kernel``.
    """

    sigma_xy: float = 100
    sigma_rgb: float = 15
    scale: float = 0.5
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        require_width("sigma_xy", self.sigma_xy)
        require_width("sigma_rgb", self.sigma_rgb)
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale must be above 0 and at most 1, found {self.scale}")


RELEASED = Bilateral()
GATED_CRF = Bilateral(sigma_xy=6, sigma_rgb=25.5, scale=1)
"""The released gated CRF loss's; 25.5 is its 0.1 for photographs in 0-1. Its backend is not used."""


class BilateralLoss(nn.Module):
    """What losses with a bilateral kernel have in common: a weight, the kernel, and scaling.

    ``forward`` takes uint8 or float photographs (B, 3, H, W), RGB in 0-255; maps (B, K, H, W) in [0, 1]; and masks
    (B, H, W): ``roi`` bool or float, 0 where a pixel is padding, else 1. It returns a scalar, and raises ValueError
    where shapes do not fit.
    """

    def __init__(self, weight: float, bilateral: Bilateral) -> None:
        super().__init__()
        self.weight = weight
        self.bilateral = bilateral

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"weight={self.weight}, bilateral={self.bilateral}"

    def small(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, K, h, w) at the scale, and their pixels' features (B, h w, 5)."""
        if image.ndim != 4 or probabilities.ndim != 4 or image.shape[2:] != probabilities.shape[2:]:
            raise ValueError(
                f"image and probabilities must be (B, 3, H, W) and (B, K, H, W), "
                f"found {tuple(image.shape)} and {tuple(probabilities.shape)}; resize the maps first"
            )
        _require_photograph(image)
        scale = self.bilateral.scale
        size = [max(1, int(length * scale)) for length in image.shape[2:]]
        maps = resize(as_float(probabilities), size)
        small = F.interpolate(as_float(image.detach()), size, mode="nearest")
        return maps, position_colour(
            small, sigma_xy=self.bilateral.sigma_xy * scale, sigma_rgb=self.bilateral.sigma_rgb
        )

    def _small_with_kernel(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Kernel]:
        maps, features = self.small(image, probabilities)
        return maps, build_kernel(features, self.bilateral.backend)


def _require_photograph(image: Tensor) -> None:
    """Refuse what the network sees: its colours are so close together that the colour kernel would not matter."""
    if torch.compiler.is_compiling() or not image.is_floating_point() or not image.numel():
        return
    least, most = (float(value) for value in image.aminmax())
    if least < 0 or 0 < most <= 1:
        raise ValueError(f"image must be the photograph, RGB in 0-255, found {least:.3g} to {most:.3g}")


class DenseCrfLoss(BilateralLoss):
    """``weight`` times ``dense_crf_loss``; the default weight is the released code's."""

    def __init__(self, *, weight: float = 2e-9, bilateral: Bilateral = RELEASED) -> None:
        super().__init__(weight, bilateral)

    def forward(self, image: Tensor, probabilities: Tensor, roi: Tensor | None = None) -> Tensor:
        """The weighted loss."""
        maps, kernel = self._small_with_kernel(image, probabilities)
        return self.weight * dense_crf_loss(maps, kernel, roi=small_mask(roi, image, maps))


class GatedDenseEnergy(BilateralLoss):
    """``weight`` times ``gated_dense_energy``; the default weight is ToCo's and CoSA's."""

    def __init__(self, *, weight: float = 1e-7, bilateral: Bilateral = RELEASED) -> None:
        super().__init__(weight, bilateral)

    def forward(self, image: Tensor, probabilities: Tensor, unlabelled: Tensor, roi: Tensor | None = None) -> Tensor:
        """The weighted loss; ``unlabelled`` is bool (B, H, W)."""
        maps, kernel = self._small_with_kernel(image, probabilities)
        chosen, inside = small_mask(unlabelled, image, maps), small_mask(roi, image, maps)
        return self.weight * gated_dense_energy(maps, kernel, unlabelled=chosen, roi=inside)


class NormalisedCut(BilateralLoss):
    """``weight`` times ``normalised_cut``; the default weight is ours."""

    def __init__(self, *, weight: float = 0.1, bilateral: Bilateral = RELEASED) -> None:
        super().__init__(weight, bilateral)

    def forward(self, image: Tensor, probabilities: Tensor, roi: Tensor | None = None) -> Tensor:
        """The weighted loss."""
        maps, kernel = self._small_with_kernel(image, probabilities)
        return self.weight * normalised_cut(maps, kernel, roi=small_mask(roi, image, maps))


class KernelCut(BilateralLoss):
    """``kernel_cut``: ``weight`` of the normalised cut, ours, and ``crf_weight`` of the DenseCRF loss, as released."""

    def __init__(self, *, weight: float = 0.1, crf_weight: float = 2e-9, bilateral: Bilateral = RELEASED) -> None:
        super().__init__(weight, bilateral)
        self.crf_weight = crf_weight

    def forward(self, image: Tensor, probabilities: Tensor, roi: Tensor | None = None) -> Tensor:
        """The weighted loss."""
        maps, kernel = self._small_with_kernel(image, probabilities)
        inside = small_mask(roi, image, maps)
        return kernel_cut(maps, kernel, cut_weight=self.weight, crf_weight=self.crf_weight, roi=inside)


class GatedCrfLoss(BilateralLoss):
    """``weight`` times ``gated_crf_loss`` in a window of ``radius`` pixels of the scaled maps; defaults as released."""

    def __init__(self, *, weight: float = 0.1, radius: int = 5, bilateral: Bilateral = GATED_CRF) -> None:
        super().__init__(weight, bilateral)
        self.radius = radius

    def forward(self, image: Tensor, probabilities: Tensor, roi: Tensor | None = None) -> Tensor:
        """The weighted loss."""
        maps, features = self.small(image, probabilities)
        kernel = WindowKernel(features, (maps.shape[2], maps.shape[3]), radius=self.radius)
        return self.weight * gated_crf_loss(maps, kernel, roi=small_mask(roi, image, maps))


@overload
def small_mask(mask: Tensor, image: Tensor, maps: Tensor) -> Tensor: ...
@overload
def small_mask(mask: None, image: Tensor, maps: Tensor) -> None: ...
def small_mask(mask: Tensor | None, image: Tensor, maps: Tensor) -> Tensor | None:
    """A mask (B, H, W) at the size of the maps, of its own type."""
    if mask is None:
        return None
    wanted = (image.shape[0], *image.shape[2:])
    if mask.shape != wanted:
        raise ValueError(f"masks must be {wanted}, found {tuple(mask.shape)}")
    return F.interpolate(mask[:, None].float(), maps.shape[2:], mode="nearest")[:, 0].to(mask.dtype)
