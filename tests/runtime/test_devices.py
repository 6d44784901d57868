"""Which device and number format are chosen. There is no accelerator here: what torch says of one is set, not run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.errors import InputError
from pseudolabel.runtime import devices
from pseudolabel.runtime.devices import (
    autocast,
    computes_in,
    grey,
    group_backend,
    normalise,
    pick_device,
    pick_dtype,
    pins_memory,
    random_state,
    set_random_state,
    wide_dtype,
)

CPU = torch.device("cpu")


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """torch says that there are so many devices of this kind, or none."""
    kind, count = request.param
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind and torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def on(kind: str | None, count: int = 1) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("accelerator", [(kind, count)], indirect=True)


@pytest.mark.parametrize(
    ("accelerator", "device"),
    [((None, 0), "cpu"), (("cuda", 2), "cuda"), (("mps", 1), "mps"), (("xpu", 1), "xpu"), (("mtia", 1), "cpu")],
    indirect=["accelerator"],
)
def test_auto_is_the_accelerator_where_the_package_knows_it(accelerator: None, device: str) -> None:
    assert pick_device("auto") == torch.device(device)
    assert pick_device("cpu") == CPU
    if device != "cpu":
        assert pick_device(device) == torch.device(device)


@pytest.mark.parametrize(
    ("accelerator", "asked", "found"),
    [
        ((None, 0), "cuda", "no accelerator"),
        ((None, 0), "mps", "no accelerator"),
        (("cuda", 1), "cuda:1", "1 cuda device"),
        (("cuda", 2), "xpu", "2 cuda devices"),
        (("mps", 1), "cuda:0", "1 mps device"),
        (("xpu", 1), "xpu:1", "1 xpu device"),
    ],
    indirect=["accelerator"],
)
def test_an_accelerator_that_is_not_there_is_one_line(accelerator: None, asked: str, found: str) -> None:
    with pytest.raises(InputError) as error:
        pick_device(asked)
    assert str(error.value) == f"--device {asked}: torch sees {found}; use --device auto or cpu"


@on("xpu", 2)
def test_one_of_several_is_chosen_by_its_number(accelerator: None) -> None:
    assert pick_device("xpu:1") == torch.device("xpu:1")


@pytest.mark.parametrize("kind", ["mps", "xpu"])
@pytest.mark.parametrize("able", [True, False])
def test_number_formats_of_accelerators_are_tried(kind: str, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(devices, "computes_in", lambda device, dtype: tried.append((str(device), dtype)) or able)
    device = torch.device(kind)
    assert pick_dtype("float32", device) == torch.float32
    assert pick_dtype("auto", device) == (torch.bfloat16 if able else torch.float32)
    assert wide_dtype(device) == (torch.float64 if able else torch.float32)
    assert tried == [(kind, torch.bfloat16), (kind, torch.float64)]
    if able:
        assert pick_dtype("bfloat16", device) == torch.bfloat16
    else:
        with pytest.raises(InputError) as error:
            pick_dtype("bfloat16", device)
        wanted = f"--precision bfloat16: {kind} does not compute in it; use --precision auto or float32"
        assert str(error.value) == wanted


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_chosen_where_the_hardware_multiplies_in_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast and not including_emulation)
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: fast, raising=False)
    for device in (CPU, torch.device("cuda")):
        assert pick_dtype("auto", device) == (torch.bfloat16 if fast else torch.float32)
        assert pick_dtype("bfloat16", device) == torch.bfloat16
        assert wide_dtype(device) == torch.float64


def test_a_trial_multiplies_for_real() -> None:
    assert all(computes_in(CPU, dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64))
    assert not computes_in(torch.device("meta"), torch.float32)  # it has no numbers
    if not torch.backends.mps.is_available():
        assert not computes_in(torch.device("mps"), torch.float32)


def test_autocast_is_off_for_float32() -> None:
    square = torch.ones(2, 2)
    with autocast(CPU, torch.float32):
        assert (square @ square).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (square @ square).dtype == torch.bfloat16


def test_memory_is_pinned_for_devices_that_read_it_themselves() -> None:
    assert [kind for kind in ("cpu", "cuda", "mps", "xpu") if pins_memory(torch.device(kind))] == ["cuda", "xpu"]


def test_processes_exchange_tensors_as_their_devices_can(monkeypatch: pytest.MonkeyPatch) -> None:
    built = {"nccl", "xccl", "gloo"}
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: name in built)
    kinds = ("cpu", "cuda", "xpu")
    assert [group_backend(torch.device(kind)) for kind in kinds] == ["gloo", "nccl", "xccl"]
    built -= {"nccl", "xccl"}  # as on Windows
    assert [group_backend(torch.device(kind)) for kind in kinds] == ["gloo", "gloo", "gloo"]


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_random_numbers_of_an_accelerator_go_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """mps has one generator, and its functions take no device."""
    kept: dict[str, torch.Tensor] = {"": torch.arange(4, dtype=torch.uint8), f"{kind}:1": torch.ones(2)}
    assert random_state(CPU) is None
    module = SimpleNamespace(
        get_rng_state=lambda device="": kept[str(device)],
        set_rng_state=lambda state, device="": kept.update({str(device): state}),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    device = torch.device("mps" if kind == "mps" else f"{kind}:1")
    before = kept["" if kind == "mps" else f"{kind}:1"]
    state = random_state(device)
    assert state is not None
    assert torch.equal(state, before)
    set_random_state(device, state + 1)
    assert torch.equal(kept["" if kind == "mps" else f"{kind}:1"], before + 1)


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
