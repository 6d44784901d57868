"""Training views: a random part of a photograph at a fixed size, mirrored and recoloured, all from one generator."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance


def random_view(
    image: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
    *,
    crop: int,
    area: tuple[float, float],
    jitter: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A random rectangle of the image, resized to a square; never padded.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W) of the same size, cut alike and resized to the nearest pixel; or None.
        rng: The only source of randomness.
        crop: Side of the square, pixels.
        area: Smallest and largest share of the image's area in the rectangle; its aspect lies within 3:4 and 4:3 of
            the image's own.
        jitter: Each of brightness, contrast and saturation is multiplied by 1 ± jitter.

    Returns:
        uint8 (crop, crop, 3) and uint8 (crop, crop) or None.
    """
    height, width = image.shape[:2]
    share = rng.uniform(*area)
    stretch = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    h = min(height, max(1.0, height * math.sqrt(share / stretch)))
    w = min(width, max(1.0, width * math.sqrt(share * stretch)))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    box = (left, top, left + w, top + h)
    mirrored = rng.random() < 0.5
    picture = Image.fromarray(image).resize((crop, crop), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(rng.uniform(1 - jitter, 1 + jitter))
    view = np.array(picture)  # a writable copy, as torch wants
    part = None
    if labels is not None:
        part = np.array(Image.fromarray(labels).resize((crop, crop), Image.Resampling.NEAREST, box=box))
    if mirrored:
        view = view[:, ::-1]
        part = None if part is None else part[:, ::-1]
    return np.ascontiguousarray(view), None if part is None else np.ascontiguousarray(part)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image uint8 (H, W, 3) resized to (height, width) with an antialiasing bilinear filter."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0))


def network_size(height: int, width: int, long_side: int, multiple: int) -> tuple[int, int]:
    """Height and width at which a network sees an image: its long side set, both sides rounded to the multiple."""
    scale = long_side / max(height, width)
    return round_to(height * scale, multiple), round_to(width * scale, multiple)


def round_to(pixels: float, multiple: int) -> int:
    """The nearest multiple, at least one of it."""
    return max(multiple, int(pixels / multiple + 0.5) * multiple)
