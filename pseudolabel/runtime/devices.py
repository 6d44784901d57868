"""Where and in which number format networks compute: on the processor, or on the accelerator that torch knows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pseudolabel.errors import InputError
from pseudolabel.runtime.formatting import counted

ACCELERATORS = ("cuda", "mps", "xpu")
_BACKENDS = {"cuda": "nccl", "xpu": "xccl"}


def pick_device(name: str) -> torch.device:
    """The device of a ``--device`` value; ``auto`` is the accelerator where there is one.

    Raises:
        InputError: An accelerator was asked for that is not there.
    """
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return here if here is not None and here.type in ACCELERATORS else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = 0 if here is None else torch.accelerator.device_count()
    if here is None or here.type != device.type or (device.index or 0) >= count:
        found = "no accelerator" if here is None else counted(count, f"{here.type} device")
        raise InputError(f"--device {name}: torch sees {found}; use --device auto or cpu")
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a ``--precision`` value; ``auto`` is bfloat16 where the hardware multiplies in it.

    Raises:
        InputError: bfloat16 was asked for of an accelerator that does not compute in it.
    """
    if precision == "float32":
        return torch.float32
    if device.type in ("cpu", "cuda"):
        return torch.bfloat16 if precision == "bfloat16" or _has_fast_bfloat16(device) else torch.float32
    able = computes_in(device, torch.bfloat16)
    if precision == "bfloat16" and not able:
        raise InputError(f"--precision bfloat16: {device} does not compute in it; use --precision auto or float32")
    return torch.bfloat16 if able else torch.float32


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@cache
def computes_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device multiplies matrices of a number format: tried once, as not every kind of device can be asked."""
    try:
        square = torch.ones(8, 8, dtype=dtype, device=device)
        return float((square @ square).sum()) == 512
    except (RuntimeError, TypeError):
        return False


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest number format of a device, for sums of many terms: float64, or float32 where it has none (mps)."""
    wide = device.type in ("cpu", "cuda") or computes_in(device, torch.float64)
    return torch.float64 if wide else torch.float32


def pins_memory(device: torch.device) -> bool:
    """Whether a device reads from pinned memory while the processor goes on."""
    return device.type in ("cuda", "xpu")


def group_backend(device: torch.device) -> str:
    """How processes that compute on such devices exchange tensors, as ``torch.distributed`` calls it."""
    backend = _BACKENDS.get(device.type, "gloo")
    return backend if torch.distributed.is_backend_available(backend) else "gloo"


def random_state(device: torch.device) -> Tensor | None:
    """The state of an accelerator's random numbers, uint8 on the processor; None for the processor itself."""
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    state: Tensor = module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)
    return state.cpu()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Go on with an accelerator's random numbers from ``random_state``."""
    module = torch.get_device_module(device)
    _ = module.set_rng_state(state) if device.type == "mps" else module.set_rng_state(state, device)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision, or nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def memory_format(*, channels_last: bool) -> torch.memory_format:
    """The memory order of images and weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


def seed_everything(seed: int) -> None:
    """Seed torch on all devices, and NumPy's legacy generator, which libraries use."""
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
