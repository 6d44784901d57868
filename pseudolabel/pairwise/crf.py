"""Mean-field inference in a dense conditional random field (Krähenbühl & Koltun 2011; docs/methods.md, section 3).

Pixels i and j of one image, at positions p and with colours I in 0-255, are tied by two Gaussian kernels::

    k(i, j) = w_b exp(-|p_i - p_j|^2 / (2 s_xy^2) - |I_i - I_j|^2 / (2 s_rgb^2))    bilateral
            + w_s exp(-|p_i - p_j|^2 / (2 s_s^2))                                    spatial

and Q <- softmax(-U + sum over kernels of w norm(A Q)), where A is a kernel's matrix, norm is symmetric
(D^-1/2 A D^-1/2, D the row sums of A) and U the unary term, -log of the probabilities one starts from.

The engine is pydensecrf, which filters on the permutohedral lattice; only ``_mean_field`` knows that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from pseudolabel.errors import MissingExtraError
from pseudolabel.options import CrfOptions

_SMALLEST = 1e-5  # a probability of 0 would be an infinite energy; pydensecrf's own floor


@dataclass(frozen=True)
class CrfSettings:
    """The numbers of one dense CRF.

    Attributes:
        iterations: Mean-field iterations.
        spatial_xy: Width s_s of the spatial kernel, pixels.
        spatial_weight: Its weight w_s.
        bilateral_xy: Width s_xy of the bilateral kernel in position, pixels.
        bilateral_rgb: Width s_rgb of the bilateral kernel in colour, grey levels.
        bilateral_weight: Its weight w_b.
        unary: ``soft`` starts from the probabilities; ``hard`` from their argmax, which is given ``gt_prob``.
        gt_prob: Probability of a hard label; the other classes share the rest. Unused where the unary is soft.
    """

    iterations: int
    spatial_xy: float
    spatial_weight: float
    bilateral_xy: float
    bilateral_rgb: float
    bilateral_weight: float
    unary: Literal["soft", "hard"] = "soft"
    gt_prob: float = 0.7


PRESETS: dict[str, CrfSettings] = {
    "deeplab": CrfSettings(10, 1, 3, 67, 3, 4),
    "toco": CrfSettings(10, 1, 1, 121, 5, 4),  # also DuPL and SeCo
    "cosa": CrfSettings(1, 1, 1, 121, 5, 4),
    "afa": CrfSettings(10, 3, 3, 64, 5, 4),
    "toco-labels": CrfSettings(10, 3, 3, 36, 3, 4),
    "psa": CrfSettings(10, 3, 3, 80, 13, 10),
    "irn": CrfSettings(10, 3, 3, 50, 5, 10, unary="hard", gt_prob=0.7),
}
"""The settings of published systems, as found in their released code."""


def resolve(options: CrfOptions) -> CrfSettings:
    """The preset's settings, with every number that the options give in its place."""
    return replace(PRESETS[options.preset], **_given(options))


def describe(options: CrfOptions) -> str:
    """The preset and what differs from it, for instance ``irn, iterations 5``: what a score must state."""
    changes = [f"{name.replace('_', ' ')} {value}" for name, value in _given(options).items()]
    return ", ".join([options.preset, *changes])


def dense_crf(image: np.ndarray, probabilities: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """Refine class probabilities so that they follow the edges of the photograph.

    Args:
        image: uint8 (H, W, 3), the original photograph in RGB, 0-255.
        probabilities: float32 (K, H, W) in [0, 1], summing to 1 at every pixel.
        settings: The numbers, for instance of ``PRESETS``.

    Returns:
        float32 (K, H, W) in [0, 1], summing to 1 at every pixel. With one class there is nothing to decide: all ones.

    Raises:
        MissingExtraError: pydensecrf is not installed.
        ValueError: Shapes or dtypes are not as stated.
    """
    if image.dtype != np.uint8 or image.shape != (*probabilities.shape[1:], 3):
        raise ValueError(f"image must be uint8 {(*probabilities.shape[1:], 3)}, found {image.dtype} {image.shape}")
    if len(probabilities) == 1:
        return np.ones_like(probabilities, dtype=np.float32)
    start = _hard(probabilities, settings.gt_prob) if settings.unary == "hard" else probabilities
    energy = -np.log(np.clip(start, _SMALLEST, 1), dtype=np.float32)
    return _mean_field(image, energy, settings)


def require_engine() -> None:
    """Fail now rather than at the first image.

    Raises:
        MissingExtraError: pydensecrf is not installed.
    """
    _engine()


def _given(options: CrfOptions) -> dict[str, Any]:
    names = CrfSettings.__dataclass_fields__
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _hard(probabilities: np.ndarray, gt_prob: float) -> np.ndarray:
    """The argmax's class at ``gt_prob``, the others sharing the rest: float32 (K, H, W)."""
    count = len(probabilities)
    chosen = probabilities.argmax(axis=0) == np.arange(count)[:, None, None]
    return np.where(chosen, np.float32(gt_prob), np.float32((1 - gt_prob) / (count - 1)))


def _mean_field(image: np.ndarray, energy: np.ndarray, settings: CrfSettings) -> np.ndarray:
    count, height, width = energy.shape
    crf = _engine().DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(count, -1)))  # pydensecrf reads C-contiguous memory only
    crf.addPairwiseGaussian(sxy=settings.spatial_xy, compat=settings.spatial_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_xy,
        srgb=settings.bilateral_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=settings.bilateral_weight,
    )
    return np.array(crf.inference(settings.iterations), dtype=np.float32).reshape(energy.shape)


def _engine() -> ModuleType:
    try:
        import pydensecrf.densecrf
    except ImportError as error:
        raise MissingExtraError(
            'the dense CRF needs pydensecrf, which is not installed; run: pip install "pseudolabel[crf]"'
        ) from error
    module: ModuleType = pydensecrf.densecrf
    return module
