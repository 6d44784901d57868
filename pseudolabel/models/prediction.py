"""What a segmenter says of photographs: class probabilities at its grid, averaged over scales and mirrored images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.models.multiscale import scaled_inputs, split_mirrored
from pseudolabel.models.segmenter import AnySegmenter

SMALLEST = 1e-4
"""A class that is nowhere more probable than this is not kept."""


def class_probabilities(network: AnySegmenter, images: Tensor, scales: tuple[float, ...], *, flip: bool) -> Tensor:
    """Softmax averaged over scales and mirrored images.

    Args:
        network: In evaluation mode.
        images: Normalised (B, 3, H, W).
        scales: Factors on H and W.
        flip: Average with the mirrored images.

    Returns:
        float32 (B, K, h, w) at the grid of scale 1, summing to 1 over K.
    """
    total: Tensor | None = None
    grid = tuple(network(images[:1]).shape[2:]) if scales[0] != 1 else None
    for view in scaled_inputs(images, scales, flip=flip, multiple=network.multiple):
        maps = network(view).float().softmax(dim=1)
        maps = torch.stack(split_mirrored(maps)).mean(dim=0) if flip else maps
        grid = grid or tuple(maps.shape[2:])
        maps = F.interpolate(maps, grid, mode="bilinear") if maps.shape[2:] != grid else maps
        total = maps if total is None else total + maps
    assert total is not None  # scales is never empty
    return total / len(scales)


def stored(probabilities: np.ndarray) -> dict[int, np.ndarray]:
    """What is kept of one image's probabilities float32 (K, h, w): class index to float16 (h, w)."""
    return {k: m.astype(np.float16) for k, m in enumerate(probabilities) if m.max() >= SMALLEST}
