"""Bilinear resizing, of coarse maps as two matrix products.

The numbers are those of ``torch.nn.functional.interpolate``, to rounding, whose backward pass is slow on a processor.
The work of a product grows with the size of what it starts from, so that maps of many cells are left to torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_COARSE = 64  # cells a side up to which products are quicker


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps resized bilinearly, pixel centres aligned, without antialiasing.

    Args:
        maps: float32 or float64 (B, K, h, w), finite; not cast down under autocast.
        size: H and W.

    Returns:
        (B, K, H, W), of the same type; the maps themselves where they have this size.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    # What compiles makes its own of it, and cannot look into the store of weights.
    if torch.compiler.is_compiling() or max(maps.shape[2:]) > _COARSE:
        return F.interpolate(maps, list(size), mode="bilinear")
    rows, columns = (
        _weights(before, after, maps.dtype, maps.device) for before, after in zip(maps.shape[2:], size, strict=True)
    )
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.contiguous() @ columns.T


@lru_cache(maxsize=256)
def _weights(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What each of the new cells takes from each of the old ones: (after, before), rows summing to 1."""
    with torch.inference_mode(mode=False), torch.no_grad():  # kept for later calls, some of which need a gradient
        unit = torch.eye(before, dtype=dtype, device=device)[None]
        return F.interpolate(unit, after, mode="linear")[0].T.contiguous()
