"""Pairs of cells, by hand and against a slow reference; their losses by hand."""

from __future__ import annotations

from itertools import combinations
from math import hypot, log

import pytest
import torch

from pseudolabel.pairwise.cell_pairs import (
    Pairs,
    afa_loss,
    cell_labels,
    dense_affinity,
    neighbour_pairs,
    pair_accuracy,
    psa_loss,
)


@pytest.mark.parametrize(("grid", "radius"), [((5, 7), 3), ((4, 4), 5), ((1, 6), 4), ((6, 1), 2), ((1, 1), 5)])
def test_pairs_are_those_closer_than_the_radius(grid: tuple[int, int], radius: int) -> None:
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    wanted = {
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(places), 2)
        if hypot(one[0] - other[0], one[1] - other[1]) < radius
    }
    pairs = neighbour_pairs(grid, radius)
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_a_cell_in_the_middle_has_the_neighbours_of_psa() -> None:
    """34 offsets of a half plane at radius 5, so 68 around it."""
    pairs = neighbour_pairs((11, 11), 5)
    assert int(((pairs.first == 60) | (pairs.second == 60)).sum()) == 68


def test_a_cell_has_the_label_at_its_centre() -> None:
    labels = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)
    assert cell_labels(labels, (2, 3)).tolist() == [[7, 9, 11, 19, 21, 23]]
    assert cell_labels(labels, (4, 6)).tolist() == [list(range(24))]


FOUR = Pairs(torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 3]))
"""Of cells labelled 0, 0, 3, 3 (then 255): background, different, one object, different."""
LABELS = torch.tensor([[0, 0, 3, 3]], dtype=torch.uint8)
AFFINITY = torch.tensor([[0.9, 0.2, 0.6, 0.4]])


def test_psa_by_hand() -> None:
    background, objects = -log(0.9 + 1e-5), -log(0.6 + 1e-5)
    different = (-log(0.8 + 1e-5) - log(0.6 + 1e-5)) / 2
    wanted = background / 4 + objects / 4 + different / 2
    assert psa_loss(AFFINITY, LABELS, FOUR).item() == pytest.approx(wanted, rel=1e-5)


def test_afa_by_hand() -> None:
    assert afa_loss(AFFINITY, LABELS, FOUR).item() == pytest.approx((0.1 + 0.4) / 2 / 2 + (0.2 + 0.4) / 2 / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [psa_loss, afa_loss])
def test_pairs_with_an_ignored_cell_teach_nothing(loss) -> None:
    affinity = AFFINITY.clone().requires_grad_()
    loss(affinity, torch.tensor([[0, 255, 3, 3]], dtype=torch.uint8), FOUR).backward()
    assert affinity.grad is not None
    assert (affinity.grad[0] != 0).tolist() == [False, False, True, True]
    nothing = loss(AFFINITY, torch.full((1, 4), 255, dtype=torch.uint8), FOUR)
    assert nothing.item() == 0


def test_pairs_told_apart_by_hand() -> None:
    assert pair_accuracy(AFFINITY, LABELS, FOUR).tolist() == [[2, 0], [0, 2]]
    assert pair_accuracy(1 - AFFINITY, LABELS, FOUR).tolist() == [[0, 2], [2, 0]]


def test_the_matrix_by_hand() -> None:
    wanted = [[1, 0.9, 0, 0.4], [0.9, 1, 0.2, 0], [0, 0.2, 1, 0.6], [0.4, 0, 0.6, 1]]
    torch.testing.assert_close(dense_affinity(AFFINITY, FOUR, 4), torch.tensor([wanted]))
