"""Pairs of neighbouring cells of a grid: which there are, what labels say of them, losses of their affinities.

Two cells belong together if they have the same label, and apart if they have not; a pair with an ignored cell says
nothing. From PSA (Ahn & Kwak 2018, arXiv 1803.10464) and AFA (Ru et al. 2022, arXiv 2203.02664).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel.data.records import IGNORE

_SMALL = 1e-5  # keeps logarithms finite, as in PSA


class Pairs(NamedTuple):
    """Pairs of cells, each once.

    Attributes:
        first: int64 (P,), a cell, numbered row by row.
        second: int64 (P,), a later one.
    """

    first: Tensor
    second: Tensor


@lru_cache(maxsize=64)
def neighbour_pairs(grid: tuple[int, int], radius: int) -> Pairs:
    """All pairs of different cells whose centres are closer than ``radius``, in cells.

    Args:
        grid: Rows and columns.
        radius: 5 in PSA, 8 in AFA.
    """
    height, width = grid
    cells = torch.arange(height * width).reshape(height, width)
    first, second = [], []
    for down in range(radius):
        for right in range(-radius + 1, radius):
            if down * down + right * right >= radius * radius or (down == 0 and right <= 0):
                continue
            left, end = max(0, -right), min(width, width - right)
            if down < height and left < end:
                first.append(cells[: height - down, left:end].flatten())
                second.append(cells[down:, left + right : end + right].flatten())
    if not first:
        return Pairs(cells.flatten()[:0], cells.flatten()[:0])
    return Pairs(torch.cat(first), torch.cat(second))


def cell_labels(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The labels of the pixels at the centres of cells.

    Args:
        labels: uint8 (B, H, W).
        grid: Rows and columns.

    Returns:
        uint8 (B, rows x columns).
    """
    rows, columns = (
        ((torch.arange(cells, device=labels.device) + 0.5) * side / cells).long()
        for cells, side in zip(grid, labels.shape[1:], strict=True)
    )
    return labels[:, rows][:, :, columns].flatten(1)


def psa_loss(affinity: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
    """A quarter each for pairs of background and of one object class, half for pairs of different labels.

    Each is the mean over its pairs of -log(a + 1e-5), or -log(1 + 1e-5 - a) where labels differ; 0 if there is none.

    Args:
        affinity: float32 (B, P), in [0, 1].
        labels: uint8 (B, N) of the cells, 255 = ignore.
        pairs: The P pairs.
    """
    together, apart = -(affinity + _SMALL).log(), -(1 + _SMALL - affinity).log()
    background, objects, different = _kinds(labels, pairs)
    return _mean(together, background) / 4 + _mean(together, objects) / 4 + _mean(apart, different) / 2


def afa_loss(affinity: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
    """Half the mean of 1 - a over pairs of one label, half the mean of a over pairs of different labels.

    Args:
        affinity: float32 (B, P), in [0, 1].
        labels: uint8 (B, N) of the cells, 255 = ignore.
        pairs: The P pairs.
    """
    background, objects, different = _kinds(labels, pairs)
    return _mean(1 - affinity, background | objects) / 2 + _mean(affinity, different) / 2


def pair_accuracy(affinity: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
    """How many pairs are told apart at 0.5: counts (2, 2), rows together and apart by label, columns by affinity."""
    background, objects, different = _kinds(labels, pairs)
    found = affinity >= 0.5
    rows = [background | objects, different]
    return torch.stack([torch.stack([(row & found).sum(), (row & ~found).sum()]) for row in rows])


def dense_affinity(affinity: Tensor, pairs: Pairs, cells: int) -> Tensor:
    """The matrix of all cells: 1 on the diagonal, symmetric, 0 for cells that are no pair.

    Args:
        affinity: float32 (B, P), in [0, 1].
        pairs: The P pairs.
        cells: N.

    Returns:
        float32 (B, N, N).
    """
    matrix = torch.eye(cells, device=affinity.device).repeat(len(affinity), 1, 1)
    matrix[:, pairs.first, pairs.second] = affinity
    matrix[:, pairs.second, pairs.first] = affinity
    return matrix


def _kinds(labels: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs bool (B, P) of background, of one object class, of different labels."""
    first, second = labels[:, pairs.first], labels[:, pairs.second]
    known = (first != IGNORE) & (second != IGNORE)
    same = known & (first == second)
    return same & (first == 0), same & (first > 0), known & (first != second)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)
