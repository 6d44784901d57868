"""Superpixels as regions: Felzenszwalb and Huttenlocher's graph merging, and SLIC, both of scikit-image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Literal

import numpy as np

from pseudolabel.artefacts.run_lengths import Regions, label_runs, make_regions
from pseudolabel.errors import MissingExtraError
from pseudolabel.runtime.formatting import short


@dataclass(frozen=True)
class SuperpixelSettings:
    """How an image is divided; those that are not of the method are None.

    Attributes:
        method: ``felzenszwalb`` (Felzenszwalb and Huttenlocher 2004) or ``slic`` (Achanta et al. 2012).
        sigma: Gaussian blur before, pixels.
        scale: Preference for larger regions.
        minimum: Fewest pixels of a region.
        segments: Number of superpixels asked for.
        compactness: Weight of place against colour.
    """

    method: Literal["felzenszwalb", "slic"]
    sigma: float
    scale: float | None = None
    minimum: int | None = None
    segments: int | None = None
    compactness: float | None = None

    @property
    def words(self) -> str:
        """For a protocol: ``felzenszwalb, sigma 0.8, scale 100, minimum 100``."""
        return ", ".join(
            short(value) if name == "method" else f"{name} {short(value)}"
            for name, value in asdict(self).items()
            if value is not None
        )


def superpixels(image: np.ndarray, settings: SuperpixelSettings) -> Regions:
    """Divide an image: every pixel is in exactly one region.

    Args:
        image: uint8 (H, W, 3), RGB.
        settings: How.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    segmentation = require_superpixels(settings.method)
    if settings.method == "felzenszwalb":
        # Of 8-bit input scikit-image takes colours as shares of 1 and divides the scale by 255, so both agree.
        labels = segmentation.felzenszwalb(image, scale=settings.scale, sigma=settings.sigma, min_size=settings.minimum)
    else:
        labels = segmentation.slic(
            image,
            n_segments=settings.segments,
            compactness=settings.compactness,
            sigma=settings.sigma,
            start_label=0,
        )
    return make_regions(labels.shape, label_runs(labels, np.unique(labels).tolist()))


def require_superpixels(method: str) -> ModuleType:
    """scikit-image's segmentations; fails now rather than at the first image.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import skimage.segmentation
    except ImportError as error:
        raise MissingExtraError(
            f"--method {method} needs the package scikit-image, which is not installed; run: "
            'pip install "pseudolabel[regions]"'
        ) from error
    module: ModuleType = skimage.segmentation
    return module
