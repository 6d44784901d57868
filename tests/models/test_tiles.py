"""Photographs in tiles: where tiles lie, what they count, and what is the same as without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.models.tiles import in_tiles, tile_starts, tile_weight


def test_beginnings_by_hand() -> None:
    assert tile_starts(64, 64, 16) == [0]
    assert tile_starts(160, 64, 16) == [0, 32, 64, 96]
    assert tile_starts(176, 64, 16) == [0, 32, 64, 96, 112]
    assert tile_starts(144, 48, 16) == [0, 16, 32, 48, 64, 80, 96]  # half of 48 is no multiple of 16
    assert tile_starts(96, 32, 16) == [0, 16, 32, 48, 64]


def test_weights_by_hand() -> None:
    # eight cells, centres at -7/16, -5/16, ... sides of the tile: -3.5, -2.5, -1.5, -0.5 standard deviations
    half = np.exp(-0.5 * np.array([2.5, 1.5, 0.5]) ** 2)
    np.testing.assert_allclose(tile_weight(8, first=False, last=False), [0, *half, *half[::-1], 0], rtol=1e-6)
    edge = np.exp(-0.5 * 3.5**2)
    np.testing.assert_allclose(tile_weight(8, first=True, last=False), [edge, *half, *half[::-1], 0], rtol=1e-6)
    np.testing.assert_allclose(tile_weight(8, first=False, last=True), [0, *half, *half[::-1], edge], rtol=1e-6)


@pytest.mark.parametrize("multiple", [1, 2, 16, 32])
@pytest.mark.parametrize("tile", [2, 3, 4, 7, 8])
def test_every_cell_is_counted(multiple: int, tile: int) -> None:
    for cells in range(1, 40):
        side, length = min(tile, cells) * multiple, cells * multiple
        weight = np.zeros(cells)
        for start in tile_starts(length, tile * multiple, multiple):
            assert start % multiple == 0
            where = slice(start // multiple, (start + side) // multiple)
            weight[where] += tile_weight(side // multiple, first=start == 0, last=start + side == length)
        assert weight.min() > 1e-4


class Net:
    """A convolution over patches of four pixels, then others that each look one cell further; counts what it saw."""

    def __init__(self, reach: int) -> None:
        torch.manual_seed(0)
        self.patches = torch.randn(5, 3, 4, 4, dtype=torch.float64) / 50
        self.others = [torch.randn(5, 5, 3, 3, dtype=torch.float64) / 3 for _ in range(reach)]
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, pixels: Tensor) -> np.ndarray:
        self.seen.append(tuple(pixels.shape))
        maps = F.conv2d(pixels.permute(0, 3, 1, 2).double(), self.patches, stride=4)
        for weight in self.others:
            maps = F.conv2d(maps, weight, padding=1).tanh()
        return maps.softmax(dim=1).float().numpy()


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(128, 128), (160, 132), (64, 256), (300, 64), (60, 200)])
@pytest.mark.parametrize("at_once", [1, 3])
def test_what_a_network_sees_within_an_eighth_of_a_tile_is_exact(size: tuple[int, int], at_once: int) -> None:
    net = Net(reach=2)  # two cells, of the sixteen of a tile
    photograph = image(*size)
    tiled = in_tiles(net, photograph, 64, multiple=4, at_once=at_once)
    assert max(shape[0] for shape in net.seen) <= at_once
    assert {max(shape[1:3]) for shape in net.seen} == {64}
    np.testing.assert_allclose(tiled, net(photograph[None])[0], atol=1e-6)


def test_what_it_sees_further_away_is_not() -> None:
    net, photograph = Net(reach=6), image(160, 160)
    difference = np.abs(in_tiles(net, photograph, 64, multiple=4, at_once=4) - net(photograph[None])[0])
    assert 1e-4 < difference.max() < 0.9
    assert difference[:, :6, :6].max() < 1e-6  # the corner, whose tile alone counts there and has its surroundings


def test_a_photograph_that_fits_is_seen_as_a_whole() -> None:
    net, photograph = Net(reach=6), image(64, 48)
    assert np.array_equal(in_tiles(net, photograph, 64, multiple=4, at_once=1), net(photograph[None])[0])
    assert net.seen == [(1, 64, 48, 3)] * 2


def test_probabilities_still_sum_to_one() -> None:
    found = in_tiles(Net(reach=6), image(200, 120), 48, multiple=8, at_once=2)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_a_tile_is_at_least_two_cells() -> None:
    net = Net(reach=0)
    in_tiles(net, image(64, 64), 5, multiple=8, at_once=1)
    assert net.seen[0] == (1, 16, 16, 3)
