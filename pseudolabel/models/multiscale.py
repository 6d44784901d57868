"""Several scales and mirror images of a batch in, one set of class activation maps out. Pure tensor code.

Per scale ReLU, then the maximum of the map and its un-mirrored mirror (CoSA's and ToCo's released code) or their sum
(IRN's); the sum over scales; then per class minus the minimum and over the maximum, or only over the maximum (IRN's).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.augmentation import round_to
from pseudolabel.runtime.resizing import resize

_FLAT = 1e-6  # a map that varies by less than this holds nothing to scale up


def scaled_inputs(
    images: Tensor, scales: Sequence[float], *, flip: bool, multiple: int, antialias: bool = True
) -> Iterator[Tensor]:
    """The inputs of a multi-scale pass.

    Args:
        images: Normalised (B, 3, H, W).
        scales: Factors on H and W.
        flip: Append the mirrored images.
        multiple: Sides are rounded to it.
        antialias: Of smaller ones; CoSA's and ToCo's released code does without. [code: all-scales]

    Yields:
        For each scale (B, 3, h, w), or (2B, 3, h, w) with flip, the mirrored ones last.
    """
    height, width = images.shape[2:]
    for scale in scales:
        size = (round_to(height * scale, multiple), round_to(width * scale, multiple))
        view = images if size == (height, width) else F.interpolate(images, size, mode="bilinear", antialias=antialias)
        yield torch.cat([view, view.flip(3)]) if flip else view


def split_mirrored(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Part (2B, C, h, w) into the maps of the images and the un-mirrored maps of their mirror images."""
    straight, mirrored = maps.chunk(2)
    return straight, mirrored.flip(3)


def activation(
    maps: Tensor, size: tuple[int, int], *, flip: bool, enlarge_first: bool = False, mirror: str = "max"
) -> Tensor:
    """What the maps of one scale add to the sum: relu(max(map, mirror)), at one size for all scales.

    Args:
        maps: (B, C, h, w), or (2B, C, h, w) with flip, the mirrored images' last.
        size: Rows and columns of the result: of the grid of scale 1, or of the image.
        flip: Whether the mirrored images' maps are there.
        enlarge_first: Resize the maps before the maximum and the ReLU, as CoSA's and ToCo's released code does, which
            has the size of the image there [code: all-scales]; else after them, which on the grid of scale 1 is cheaper
            [ours].
        mirror: ``max``, or ``sum``: relu(map) + relu(mirror), as IRN's released code does. [code: mirror-sum]

    Returns:
        float32 (B, C, *size), non-negative.
    """
    maps = maps.float()
    if enlarge_first:
        maps = resize(maps, size)
    maps = maps.relu()
    if flip:
        straight, mirrored = split_mirrored(maps)
        maps = straight + mirrored if mirror == "sum" else torch.maximum(straight, mirrored)
    return resize(maps, size)


def unit_range(maps: Tensor, how: str = "minmax", inside: Tensor | None = None) -> Tensor:
    """Each map scaled to [0, 1]; one that does not vary becomes zero.

    Args:
        maps: float (..., h, w), non-negative.
        how: ``minmax``, (M - min) / (max - min), or ``max``, M / max.
        inside: bool, broadcastable to ``maps``: False where a cell is padding, which then neither sets a map's extremes
            nor keeps a value. None: all are inside.

    Returns:
        Like ``maps``, in [0, 1]; 0 outside.
    """
    low = maps if inside is None else maps.masked_fill(~inside, torch.inf)
    high = maps if inside is None else maps.masked_fill(~inside, 0.0)
    least = low.amin(dim=(-2, -1), keepdim=True) if how == "minmax" else maps.new_zeros(())
    span = high.amax(dim=(-2, -1), keepdim=True) - least
    scaled = torch.where(span > _FLAT, (maps - least) / span, 0.0)
    return scaled if inside is None else scaled.masked_fill(~inside, 0.0)
