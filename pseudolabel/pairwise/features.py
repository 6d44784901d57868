"""Features of pixels, divided by their widths, so that a kernel between pixels i and j is exp(-|f_i - f_j|^2 / 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def position_colour(image: Tensor, *, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """The features of the bilateral kernel: position over its width, colour over its width.

    Args:
        image: uint8 or float (B, 3, H, W), RGB in 0-255.
        sigma_xy: Width in position, pixels of this image.
        sigma_rgb: Width in colour, grey levels of 0-255.

    Returns:
        float32 (B, H W, 5), float64 for a float64 image: column, row, red, green, blue; pixels row by row.

    Raises:
        ValueError: A width is not above 0, or the image is not (B, 3, H, W).
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be (B, 3, H, W), found {tuple(image.shape)}")
    require_width("sigma_xy", sigma_xy)
    require_width("sigma_rgb", sigma_rgb)
    colour = as_features(image, sigma_rgb)
    batch, _, height, width = image.shape
    rows = torch.arange(height, dtype=colour.dtype, device=image.device) / sigma_xy
    columns = torch.arange(width, dtype=colour.dtype, device=image.device) / sigma_xy
    place = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    return torch.cat([place.reshape(1, -1, 2).expand(batch, -1, -1), colour], dim=-1)


def as_features(maps: Tensor, sigma: float) -> Tensor:
    """More dimensions of a kernel, to be concatenated in the last axis; for instance DFR's deep features (2108.01296).

    Args:
        maps: (B, D, H, W), any real type.
        sigma: Their width, in their own unit.

    Returns:
        float32 (B, H W, D), float64 for float64 maps; pixels row by row.

    Raises:
        ValueError: The width is not above 0, or the maps have not four axes.
    """
    if maps.ndim != 4:
        raise ValueError(f"feature maps must be (B, D, H, W), found {tuple(maps.shape)}")
    require_width("sigma", sigma)
    return as_float(maps).flatten(2).mT / sigma


def as_float(values: Tensor) -> Tensor:
    """In float32, or left alone in float64: kernels are never computed in fewer bits, not under autocast either."""
    return values if values.dtype == torch.float64 else values.float()


def require_width(name: str, value: float) -> None:
    """Refuse what is no width.

    Raises:
        ValueError: The value is not finite or not above 0.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number above 0, found {value}")
