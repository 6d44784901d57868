"""Affinity forms by hand and against slow references; propagation at several scales and within boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudolabel.models.affinity import Attending, patch_affinity, propagate
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.propagation import (
    Propagation,
    affinity_of,
    class_boxes,
    doubly_stochastic,
    feature_affinity,
    pass_on,
)
from pseudolabel.runtime.resizing import resize


def random_affinity(batch: int, cells: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, cells, cells, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(dim=2)


def random_maps(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_sinkhorn_by_hand() -> None:
    """Columns of [[1, 1], [1, 3]] sum to 2 and 4, then rows to 3/4 and 5/4."""
    affinity = torch.tensor([[[1.0, 1.0], [1.0, 3.0]]])
    once = [[2 / 3, 1 / 3], [2 / 5, 3 / 5]]
    torch.testing.assert_close(
        doubly_stochastic(affinity, 1)[0], torch.tensor([[once[0][0], 11 / 30], [11 / 30, once[1][1]]])
    )


def test_rows_and_columns_come_to_sum_to_one() -> None:
    found = doubly_stochastic(random_affinity(2, 30), 60)
    torch.testing.assert_close(found, found.mT)
    for axis in (1, 2):
        torch.testing.assert_close(found.sum(dim=axis), torch.ones(2, 30), atol=1e-4, rtol=0)


def test_caa_twice_is_the_squared_matrix_times_the_map_in_boxes() -> None:
    """As CLIP-ES writes it: T = (T + T') / 2, T T, columns outside of the boxes zero, times the map."""
    attention, maps = random_affinity(1, 20), random_maps(1, 2, 4, 5)
    matrix = attention[0].double().numpy()
    for _ in range(3):
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    matrix = (matrix + matrix.T) / 2
    matrix = matrix @ matrix
    boxes = class_boxes(maps, 0.4).double().numpy().reshape(2, 20)
    wanted = [matrix * boxes[label] @ maps[0, label].double().numpy().ravel() for label in range(2)]
    found = pass_on(maps, [((4, 5), doubly_stochastic(attention))], Propagation(2, "caa", boxes=0.4))
    np.testing.assert_allclose(found.numpy().reshape(2, 20), wanted, rtol=1e-5)


def test_boxes_by_hand() -> None:
    """Two parts, one of them of two cells that touch at a corner; what is at the share itself is outside."""
    maps = torch.zeros(1, 2, 5, 6)
    maps[0, 0, 0, 0] = maps[0, 0, 1, 1] = 1.0
    maps[0, 0, 4, 5] = 0.5
    maps[0, 0, 3, 3] = 0.4
    inside = torch.zeros(5, 6)
    inside[:2, :2] = inside[4, 5] = 1
    assert class_boxes(maps, 0.4)[0, 0].tolist() == inside.tolist()
    assert not class_boxes(maps, 0.4)[0, 1].any()
    assert class_boxes(torch.ones(1, 1, 3, 3), 0.4).all()


def test_feature_affinity_by_hand() -> None:
    """Cells 0 and 2 point the same way, cell 1 at a right angle: cosines 1, 0, 1 over 0.1."""
    features = torch.tensor([[[[2.0, 0.0, 5.0]], [[0.0, 3.0, 0.0]]]])
    near, far = np.exp(10.0), 1.0
    wanted = [[near, far, near], [far, near, far], [near, far, near]]
    wanted = np.array(wanted) / np.sum(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(feature_affinity(features)[0], wanted, rtol=1e-5)


def test_one_scale_of_its_own_grid_is_plain_propagation() -> None:
    affinity, maps = random_affinity(2, 12), random_maps(2, 3, 3, 4)
    found = pass_on(maps, [((3, 4), affinity)], Propagation(3))
    torch.testing.assert_close(found, propagate(maps, affinity, 3))


def test_several_scales_are_the_mean_of_each() -> None:
    maps = random_maps(1, 2, 4, 6)
    fine, coarse = random_affinity(1, 24), random_affinity(1, 6, seed=3)
    found = pass_on(maps, [((4, 6), fine), ((2, 3), coarse)], Propagation(2, scales=(1.0, 0.5)))
    small = propagate(resize(maps, (2, 3)), coarse, 2)
    torch.testing.assert_close(found, (propagate(maps, fine, 2) + resize(small, (4, 6))) / 2)


def network(name: str) -> Backbone:
    torch.manual_seed(1)
    found = Backbone(name).eval()
    for parameter in found.parameters():  # attention of fresh weights is all but even
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    return found


def test_the_blocks_asked_for_are_read() -> None:
    vit = network("test_vit2")
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [patch_affinity(vit, pixels, flip=False, blocks=[block]) for block in range(vit.depth)]
        both = patch_affinity(vit, pixels, flip=False, blocks=[0, 2])
        with Attending(vit, [1]) as attending:
            vit(pixels)
    torch.testing.assert_close(both, (each[0] + each[2]) / 2)
    torch.testing.assert_close(attending.affinity(), each[1])
    assert (each[0] - each[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "form"), [("test_vit2", "mean"), ("test_vit2", "caa"), ("test_resnet", "features")])
def test_an_affinity_of_its_own_pass_is_on_the_grid_of_the_maps(name: str, form: str) -> None:
    backbone = network(name)
    pixels = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cells = backbone(pixels)[0].flatten(2).shape[2]
        found = affinity_of(backbone, pixels, Propagation(2, form), flip=True)  # type: ignore[arg-type]
    assert found.shape == (2, cells, cells)
    torch.testing.assert_close(found.sum(dim=2), torch.ones(2, cells), atol=0.05, rtol=0)
