"""Resizing by matrix products against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from pseudolabel.runtime.resizing import resize


@pytest.mark.parametrize("size", [(8, 12), (16, 5), (3, 2), (1, 1), (31, 40)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torch(size, layout):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 8, 12, dtype=torch.float64).to(memory_format=layout)
    weights = torch.randn(2, 3, *size, dtype=torch.float64)
    found, wanted = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    mine, theirs = resize(found, size), F.interpolate(wanted, size, mode="bilinear")
    torch.testing.assert_close(mine, theirs)
    (mine * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.parametrize("before", [64, 65])
def test_fine_maps_are_resized_alike(before):
    maps = torch.rand(1, 2, before, 3)
    torch.testing.assert_close(resize(maps, (30, 7)), F.interpolate(maps, (30, 7), mode="bilinear"))


def test_a_map_in_float32_is_not_cast_down_under_autocast():
    maps = torch.rand(1, 2, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = resize(maps, (50, 60))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.interpolate(maps, (50, 60), mode="bilinear"), rtol=1e-5, atol=1e-6)


def test_after_a_call_in_inference_mode_gradients_still_flow():
    maps = torch.rand(1, 1, 6, 6)
    with torch.inference_mode():
        resize(maps, (13, 17))
    maps.requires_grad_()
    resize(maps, (13, 17)).sum().backward()
    assert maps.grad.sum().item() == pytest.approx(13 * 17, rel=1e-5)


def test_by_hand():
    assert resize(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    maps = torch.rand(1, 1, 3, 3)
    assert resize(maps, (3, 3)) is maps
