"""Photographs as networks see them."""

import numpy as np
import torch
from PIL import Image

from pseudolabel.runtime.devices import grey, normalise


def test_grey_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    pixels[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    assert np.array_equal(grey(torch.from_numpy(pixels))[..., 0].numpy(), expected)


def test_one_mean_makes_one_channel() -> None:
    pixels = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (grey(pixels)[..., 0].float()[:, None] / 255 - 0.5) / 0.25
    for channels_last in (True, False):
        torch.testing.assert_close(normalise(pixels, (0.5,), (0.25,), channels_last=channels_last), expected)
