"""Strong views of photographs, and the regions in which they show another one (CutMix, Yun et al. 2019)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance

from pseudolabel.data.augmentation import blurred

_JITTER = 0.5  # of brightness, contrast and saturation
_HUE = 0.25  # of the circle of hues
_SHARE = (0.02, 0.4)  # of the view in a region of another one
_ASPECT = (0.3, 1 / 0.3)


def strong_view(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop recoloured so much that a network has to look at shapes. [read: CCVC and UniMatch]

    With probability 0.8 brightness, contrast and saturation times 0.5 to 1.5 and hue turned by up to a quarter, in
    random order; with 0.2 grey; with 0.5 blurred by 0.1 to 2 pixels.

    Args:
        view: uint8 (H, W, 3), RGB.
        rng: The only source of randomness.

    Returns:
        uint8 (H, W, 3): no pixel is moved.
    """
    picture = Image.fromarray(view)
    jittered, grey = rng.random() < 0.8, rng.random() < 0.2
    factors, turn = rng.uniform(1 - _JITTER, 1 + _JITTER, 3), rng.uniform(-_HUE, _HUE)
    order = rng.permutation(4)
    if jittered:
        enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for number in order.tolist():
            picture = turned(picture, turn) if number == 3 else enhance[number](picture).enhance(factors[number])
    if grey:
        picture = picture.convert("L").convert("RGB")
    return blurred(np.asarray(picture), rng, 0.5)


def turned(picture: Image.Image, share: float) -> Image.Image:
    """A picture with its hues turned by a share of their circle, in [-1, 1]."""
    hue, saturation, value = picture.convert("HSV").split()
    moved = Image.fromarray(np.asarray(hue) + np.uint8(round(share * 255) % 256))
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")


def mixed_region(grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Where a view shows another photograph: a random rectangle of whole cells. [read: its size] [ours: whole cells]

    Its area is uniform in 2 to 40 % of the view, its height through its width in 0.3 to 3.3, before it is rounded to
    cells; so the labels of a mixed view, which are of cells, are exact.

    Args:
        grid: h and w.
        rng: The only source of randomness.

    Returns:
        bool (h, w), True inside; at least one cell, and not all of them.
    """
    rows, columns = grid
    area, aspect = rng.uniform(*_SHARE), rng.uniform(*_ASPECT)
    height = min(rows, max(1, round(rows * math.sqrt(area * aspect))))
    width = min(columns, max(1, round(columns * math.sqrt(area / aspect))))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    inside = np.zeros(grid, bool)
    inside[top : top + height, left : left + width] = rows * columns > 1
    return inside


def paste(view: np.ndarray, other: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A view that shows another one in some cells.

    Args:
        view: uint8 (H, W, 3).
        other: Likewise.
        inside: bool (h, w); H and W are multiples of h and w.

    Returns:
        uint8 (H, W, 3).
    """
    down, across = view.shape[0] // inside.shape[0], view.shape[1] // inside.shape[1]
    return np.where(inside.repeat(down, axis=0).repeat(across, axis=1)[:, :, None], other, view)
