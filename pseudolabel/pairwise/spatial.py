"""The spatial Gaussian kernel: a convolution with a Gaussian along x and along y, cut off at the border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pseudolabel.pairwise.jit import compiled

_UNROLLED = 4  # taps a pass: fewer passes over a row, which is what takes the time
_REACH = 3.0  # least radius in standard deviations: the kernel is below 0.011 there


def gaussian(
    maps: np.ndarray, sigma: float, scale: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """``diag(scale) G diag(scale)`` times each map, G_ij = exp(-|p_i - p_j|^2 / (2 sigma^2)), p in pixels.

    Args:
        maps: float32 (K, H, W).
        sigma: Width in pixels, above 0.
        scale: float32 (H, W); None is all ones.
        out: float32 (K, H, W), what the result is added to; None is zeros.

    Returns:
        float32 (K, H, W), ``out`` where it is given.

    Raises:
        ValueError: The width is not above 0, or another shape or dtype.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"kernel width must be above 0, found {sigma}")
    if maps.dtype != np.float32 or maps.ndim != 3:
        raise ValueError(f"maps must be float32 (K, H, W), found {maps.dtype} {maps.shape}")
    scale = np.ones(maps.shape[1:], np.float32) if scale is None else np.ascontiguousarray(scale)
    if scale.shape != maps.shape[1:] or scale.dtype != np.float32:
        raise ValueError(f"scale must be float32 {maps.shape[1:]}, found {scale.dtype} {scale.shape}")
    result = np.zeros(maps.shape, np.float32) if out is None else out
    if result.shape != maps.shape or result.dtype != np.float32:
        raise ValueError(f"out must be float32 {maps.shape}, found {result.dtype} {result.shape}")
    for plane, to in zip(np.ascontiguousarray(maps), result, strict=True):
        _convolve(plane, _taps(sigma, max(plane.shape)), scale, to)
    return result


def _taps(sigma: float, longest: int) -> np.ndarray:
    """The kernel at distances 0 to its radius, which is a multiple of ``_UNROLLED``: float32."""
    radius = min(math.ceil(_REACH * sigma), longest)
    distance = np.arange(-(-radius // _UNROLLED) * _UNROLLED + 1, dtype=np.float64)
    taps: np.ndarray = np.exp(-(distance**2) / (2 * sigma**2)).astype(np.float32)
    return taps


@compiled
def _convolve(plane: Any, taps: Any, scale: Any, out: Any) -> None:
    height, width = plane.shape
    radius = taps.shape[0] - 1
    reach = min(radius, -(-height // 4) * 4)  # rows beyond the height are zero
    ring = 2 * reach + 1  # rows at a time, as many as one row of the result needs: they stay near in the cache
    rows = np.zeros((ring, width), np.float32)
    # Zeros above and below, before and behind, so that no tap needs a check.
    row, mixed = np.zeros(width + 2 * radius, np.float32), np.empty(width, np.float32)
    middle = row[radius : radius + width]
    for y in range(-reach, height):
        newest, below = rows[(y + reach) % ring], y + reach
        if below < height:
            source, factor = plane[below], scale[below]
            for x in range(width):
                newest[x] = source[x] * factor[x]
        else:
            newest[:] = 0
        if y < 0:
            continue
        source = rows[y % ring]
        for t in range(1, reach, 4):
            a, b, c, d = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
            up, down = y + ring - t, y + t
            p, q, r, s = rows[up % ring], rows[(up - 1) % ring], rows[(up - 2) % ring], rows[(up - 3) % ring]
            i, j, k, m = rows[down % ring], rows[(down + 1) % ring], rows[(down + 2) % ring], rows[(down + 3) % ring]
            for x in range(width):
                near = a * (p[x] + i[x]) + b * (q[x] + j[x])
                before = taps[0] * source[x] if t == 1 else middle[x]
                middle[x] = before + near + (c * (r[x] + k[x]) + d * (s[x] + m[x]))
        for t in range(1, radius, 4):
            a, b, c, d = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
            left, right = row[radius - t - 3 : radius - t + width], row[radius + t : radius + t + 3 + width]
            for x in range(width):
                near = a * (left[x + 3] + right[x]) + b * (left[x + 2] + right[x + 1])
                before = taps[0] * middle[x] if t == 1 else mixed[x]
                mixed[x] = before + near + (c * (left[x + 1] + right[x + 2]) + d * (left[x] + right[x + 3]))
        factor, to = scale[y], out[y]
        for x in range(width):
            to[x] += mixed[x] * factor[x]
