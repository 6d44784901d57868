"""Where and in which number format networks compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from pseudolabel.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of a ``--device`` value; ``auto`` is the first GPU where there is one.

    Raises:
        InputError: A GPU was asked for that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs; use --device auto or cpu")
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a ``--precision`` value; ``auto`` is bfloat16 where the hardware multiplies in it."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision, or nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def memory_format(*, channels_last: bool) -> torch.memory_format:
    """The memory order of images and weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


def seed_everything(seed: int) -> None:
    """Seed torch and NumPy's legacy generator, which libraries use."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # for libraries; our own code uses generators


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], *, channels_last: bool = True) -> Tensor:
    """Network input of photographs.

    Args:
        images: uint8 (B, H, W, 3).
        mean: Per channel, for pixels in [0, 1]; of one channel, the photographs are turned to grey first.
        std: Per channel.
        channels_last: Memory order of the result.

    Returns:
        float32 (B, C, H, W), C the number of channels of ``mean``, 3 or 1.
    """
    images = grey(images) if len(mean) == 1 else images
    pixels = images.permute(0, 3, 1, 2).float() / 255  # permuting (B, H, W, 3) is channels-last already
    shape = (1, len(mean), 1, 1)
    scaled = (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)
    return scaled.contiguous(memory_format=memory_format(channels_last=channels_last))


def grey(images: Tensor) -> Tensor:
    """Photographs in grey levels by ITU-R 601, rounded as Pillow's mode ``L``.

    Args:
        images: uint8 (B, H, W, 3).

    Returns:
        uint8 (B, H, W, 1).
    """
    red, green, blue = images.int().unbind(dim=3)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[..., None]
