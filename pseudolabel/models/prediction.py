"""What a segmenter says of photographs: class probabilities at its grid, averaged over scales and mirrored images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.models.multiscale import scaled_inputs, split_mirrored
from pseudolabel.models.pair import AnyPredictor
from pseudolabel.models.tiles import in_tiles
from pseudolabel.options import InferenceOptions
from pseudolabel.runtime.devices import autocast, normalise, pick_dtype

SMALLEST = 1e-4
"""A class that is nowhere more probable than this is not kept."""


@dataclass(frozen=True)
class Inference:
    """A segmenter, and how it looks at photographs.

    Attributes:
        network: In evaluation mode, on ``device``.
        device: Where it computes.
        dtype: The number format in which it does.
        scales: Over which probabilities are averaged.
        flip: Average with the mirrored images.
        tile: Longest side of what is seen at once, pixels; None: all of a photograph.
        tiles_at_once: Most tiles of a photograph that are computed at the same time.
    """

    network: AnyPredictor
    device: torch.device
    dtype: torch.dtype
    scales: tuple[float, ...]
    flip: bool
    tile: int | None = None
    tiles_at_once: int = 1

    @classmethod
    def of(cls, network: AnyPredictor, options: InferenceOptions, device: torch.device) -> Inference:
        """Bring a network to a device and into evaluation mode, to look at photographs as options say.

        Raises:
            InputError: The device does not compute in the number format that is asked for.
        """
        dtype = pick_dtype(options.precision, device)
        network.to(device).to(memory_format=torch.channels_last).eval()
        tiles = 1 if device.type == "cpu" else options.batch_size
        return cls(network, device, dtype, options.scales, options.flip, options.tile, tiles)

    def probabilities(self, pixels: Tensor) -> np.ndarray:
        """Probabilities float32 (B, K, h, w), at the network's grid, of photographs uint8 (B, H, W, 3) of one size."""
        if self.tile is None:
            return self._at_once(pixels)
        return np.stack(
            [
                in_tiles(self._at_once, image, self.tile, multiple=self.network.multiple, at_once=self.tiles_at_once)
                for image in pixels
            ]
        )

    def _at_once(self, pixels: Tensor) -> np.ndarray:
        with autocast(self.device, self.dtype), torch.inference_mode():
            images = normalise(pixels.to(self.device), self.network.mean, self.network.std)
            found = class_probabilities(self.network, images, self.scales, flip=self.flip)
        return np.asarray(found.cpu().numpy())


def long_side(options: InferenceOptions, crop: int) -> int | None:
    """Pixels of an image's long side at scale 1: what is asked for, else twice the training's crop; None: its own."""
    return options.size or (None if options.tile else 2 * crop)


def class_probabilities(network: AnyPredictor, images: Tensor, scales: tuple[float, ...], *, flip: bool) -> Tensor:
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
