"""A large photograph in overlapping tiles, so that a network's memory depends on the tile and not on the photograph.

Tiles overlap by half. What they say of a place is averaged, with a Gaussian weight around the middle of each tile whose
standard deviation is an eighth of its side (Isensee et al. 2021, nnU-Net [read]). Beyond three of these, within an
eighth of the side from a border inside the photograph, a tile does not count [ours]: where a network looks no further
than that, the result is that of the whole photograph at once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from torch import Tensor, stack

from pseudolabel.data.augmentation import round_to

_SIGMA = 1 / 8  # in sides of the tile
_REACH = 3  # in standard deviations


def in_tiles(
    predict: Callable[[Tensor], np.ndarray], image: Tensor, tile: int, *, multiple: int, at_once: int
) -> np.ndarray:
    """What a network says of a photograph, tile by tile.

    Args:
        predict: Photographs uint8 (B, H, W, 3) of one size to float32 (B, K, h, w) at the network's grid.
        image: uint8 (H, W, 3); both sides are multiples of ``multiple``.
        tile: Longest side of a tile, pixels; rounded to a multiple, two of them at least.
        multiple: Both sides of the network's input are multiples of it; so are those of a cell of its grid.
        at_once: Most tiles that are computed at the same time.

    Returns:
        float32 (K, h, w). A photograph no larger than a tile is computed at once.
    """
    tile = max(2 * multiple, round_to(tile, multiple))
    height, width = image.shape[:2]
    sides = min(tile, height), min(tile, width)
    if sides == (height, width):
        whole: np.ndarray = predict(image[None])[0]
        return whole
    places = list(product(tile_starts(height, tile, multiple), tile_starts(width, tile, multiple)))
    total = weight = np.zeros(0, dtype=np.float32)
    cell = (1, 1)
    for begin in range(0, len(places), at_once):
        some = places[begin : begin + at_once]
        found = predict(stack([image[top : top + sides[0], left : left + sides[1]] for top, left in some]))
        if not total.size:
            cell = sides[0] // found.shape[2], sides[1] // found.shape[3]
            total = np.zeros((found.shape[1], height // cell[0], width // cell[1]), dtype=np.float32)
            weight = np.zeros(total.shape[1:], dtype=np.float32)
        for (top, left), maps in zip(some, found, strict=True):
            down = tile_weight(maps.shape[1], first=top == 0, last=top + sides[0] == height)
            across = tile_weight(maps.shape[2], first=left == 0, last=left + sides[1] == width)
            own = down[:, None] * across
            rows = slice(top // cell[0], top // cell[0] + maps.shape[1])
            columns = slice(left // cell[1], left // cell[1] + maps.shape[2])
            total[:, rows, columns] += maps * own
            weight[rows, columns] += own
    total /= weight
    return total


def tile_starts(side: int, tile: int, multiple: int) -> list[int]:
    """Where tiles begin on a side of a photograph: each half a tile after the other, the last at the far end.

    Args:
        side: Of the photograph, pixels.
        tile: Side of a tile, pixels.
        multiple: Of which all three are multiples, and every beginning is.
    """
    if side <= tile:
        return [0]
    step = max(multiple, tile // 2 // multiple * multiple)
    return [*range(0, side - tile, step), side - tile]


def tile_weight(cells: int, *, first: bool, last: bool) -> np.ndarray:
    """How much each cell of a tile counts along one side: float32 (cells,).

    Args:
        cells: Of the tile, along this side.
        first: Whether the tile's beginning is the photograph's, behind which no other tile can count instead.
        last: Whether the tile's end is the photograph's.
    """
    place = (np.arange(cells) + 0.5) / cells - 0.5
    counts = np.abs(place) <= _REACH * _SIGMA
    counts |= (place < 0) & first
    counts |= (place > 0) & last
    return np.where(counts, np.exp(-0.5 * (place / _SIGMA) ** 2), 0).astype(np.float32)
