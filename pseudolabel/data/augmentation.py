"""Augmented crops: a random part of a photograph at a fixed size, mirrored and recoloured, all from one generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pseudolabel.data.records import IGNORE

_PADDING = (0, 0, 0)
"""What padding is filled with: black, as in CoSA's released code. [read]"""

_STRONGEST = 10  # magnitude of RandAugment's operations; the released code draws 1 to 9


class Part(NamedTuple):
    """A rectangle of an image, in its pixels, and whether its crop is mirrored."""

    left: float
    top: float
    right: float
    bottom: float
    mirrored: bool = False


def random_part(size: tuple[int, int], rng: np.random.Generator, area: tuple[float, float]) -> Part:
    """A random rectangle inside an image, mirrored or not.

    Args:
        size: Height and width of the image.
        rng: The only source of randomness.
        area: Smallest and largest share of the image's area in the rectangle; its aspect lies within 3:4 and 4:3 of
            the image's own.
    """
    height, width = size
    share = rng.uniform(*area)
    stretch = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    h = min(height, max(1.0, height * math.sqrt(share / stretch)))
    w = min(width, max(1.0, width * math.sqrt(share * stretch)))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return Part(left, top, left + w, top + h, rng.random() < 0.5)


def crop_of(image: np.ndarray, part: Part, rng: np.random.Generator, *, crop: int, jitter: float) -> np.ndarray:
    """A part of an image uint8 (H, W, 3), resized to a square and recoloured: uint8 (crop, crop, 3).

    Args:
        image: The photograph.
        part: What is seen of it.
        rng: Of the colours.
        crop: Side of the square, pixels.
        jitter: Each of brightness, contrast and saturation is multiplied by 1 ± jitter.
    """
    picture = Image.fromarray(image).resize((crop, crop), Image.Resampling.BILINEAR, box=part[:4], reducing_gap=2.0)
    return _mirrored(_recoloured(picture, rng, jitter), part)


def crop_map(values: np.ndarray, part: Part, side: int) -> np.ndarray:
    """The crop of a map over the image: a label map uint8 (H, W), by the nearest pixel, or floats, bilinearly.

    Args:
        values: uint8 or float32 (H, W), of the size in which ``part`` counts.
        part: What is seen of it.
        side: Of the square, pixels or cells.
    """
    how = Image.Resampling.NEAREST if values.dtype == np.uint8 else Image.Resampling.BILINEAR
    return _mirrored(np.array(Image.fromarray(values).resize((side, side), how, box=part[:4])), part)


def crop_scribbles(labels: np.ndarray, part: Part, side: int) -> np.ndarray:
    """As ``crop_map`` of a label map, but no labelled pixel is lost: thin strokes of large photographs would be. [ours]

    A pixel of the crop takes its nearest pixel's label, or, if that has none, the label of any pixel that falls on it.

    Args:
        labels: uint8 (H, W), 255 where unlabelled.
        part: What is seen of it.
        side: Of the square, pixels.
    """
    view = crop_map(labels, part._replace(mirrored=False), side)
    y, x = np.nonzero(labels != IGNORE)
    row = np.floor((y + 0.5 - part.top) * side / (part.bottom - part.top)).astype(np.intp)
    column = np.floor((x + 0.5 - part.left) * side / (part.right - part.left)).astype(np.intp)
    seen = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    fallen = np.full_like(view, IGNORE)
    fallen[row[seen], column[seen]] = labels[y[seen], x[seen]]
    return _mirrored(np.where(view == IGNORE, fallen, view), part)


def random_crop(
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
        area: As of ``random_part``.
        jitter: As of ``crop_of``.

    Returns:
        uint8 (crop, crop, 3) and uint8 (crop, crop) or None.
    """
    height, width = image.shape[:2]
    part = random_part((height, width), rng, area)
    view = crop_of(image, part, rng, crop=crop, jitter=jitter)
    return view, None if labels is None else crop_map(labels, part, crop)


def scaled_crop(
    image: np.ndarray, rng: np.random.Generator, *, crop: int, scales: tuple[float, float], jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """The image scaled at random and a random square of it, padded where it is smaller than the square.

    Args:
        image: uint8 (H, W, 3).
        rng: The only source of randomness.
        crop: Side of the square, pixels.
        scales: Smallest and largest factor on height and width.
        jitter: Each of brightness, contrast and saturation is multiplied by 1 ± jitter.

    Returns:
        uint8 (crop, crop, 3); bool (crop, crop), False where it is padding.
    """
    scale = rng.uniform(*scales)
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])  # rounded down, as released
    top, left = (_offset(rng, side, crop) for side in (height, width))
    rows = slice(max(0, -top), min(crop, height - top))
    columns = slice(max(0, -left), min(crop, width - left))
    across, down = image.shape[1] / width, image.shape[0] / height
    box = (
        (columns.start + left) * across,
        (rows.start + top) * down,
        min((columns.stop + left) * across, image.shape[1]),
        min((rows.stop + top) * down, image.shape[0]),
    )
    size = (columns.stop - columns.start, rows.stop - rows.start)
    mirrored = rng.random() < 0.5
    part = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    view = np.empty((crop, crop, 3), np.uint8)
    view[:] = _PADDING
    inside = np.zeros((crop, crop), bool)
    view[rows, columns], inside[rows, columns] = _recoloured(part, rng, jitter), True
    if mirrored:
        view, inside = view[:, ::-1], inside[:, ::-1]
    return np.ascontiguousarray(view), np.ascontiguousarray(inside)


def blurred(view: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """A crop uint8 (H, W, 3), with a probability blurred by a Gaussian of 0.1 to 2 pixels. [code: blur]"""
    chosen, radius = rng.random() < probability, rng.uniform(0.1, 2.0)
    return np.array(Image.fromarray(view).filter(ImageFilter.GaussianBlur(radius))) if chosen else view


def recoloured(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop uint8 (H, W, 3) after one random operation of RandAugment that moves no pixel, at a random magnitude.

    RandAugment: Cubuk et al. 2020. The nine operations, of which CoSA's student sees one, and their magnitudes from 1
    to 9 of 10 are those of its released code. [code: randaugment]
    """
    operation = _OPERATIONS[int(rng.integers(len(_OPERATIONS)))]
    return np.array(operation(Image.fromarray(view), int(rng.integers(1, _STRONGEST))))


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, int], Image.Image]:
    return lambda picture, magnitude: kind(picture).enhance(0.1 + 1.8 * magnitude / _STRONGEST)


_OPERATIONS: tuple[Callable[[Image.Image, int], Image.Image], ...] = (
    lambda picture, magnitude: picture,  # RandAugment has the identity among its operations
    lambda picture, magnitude: ImageOps.autocontrast(picture),
    lambda picture, magnitude: ImageOps.equalize(picture),
    lambda picture, magnitude: ImageOps.posterize(picture, 4 - 4 * magnitude // _STRONGEST),
    lambda picture, magnitude: ImageOps.solarize(picture, 256 * magnitude // _STRONGEST),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Sharpness),
)


def _recoloured(picture: Image.Image, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Brightness, contrast and saturation each times 1 ± jitter; a writable copy, as torch wants."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(rng.uniform(1 - jitter, 1 + jitter))
    return np.array(picture)


def _mirrored(values: np.ndarray, part: Part) -> np.ndarray:
    return np.ascontiguousarray(values[:, ::-1] if part.mirrored else values)


def _offset(rng: np.random.Generator, side: int, crop: int) -> int:
    """Where the square begins in an image's side: negative where the image is smaller and lies within the square."""
    low, high = sorted((0, side - crop))
    return int(rng.integers(low, high + 1))


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
