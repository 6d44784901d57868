"""Attention affinity: which patches belong together by a plain ViT's own attention, and propagation along it.

A classifier's maps are high on what tells a class from others, a part of the object or of its surroundings. Attention
between patches spreads them over what looks alike: TS-CAM (Gao et al. 2021, arXiv 2103.14862), MCTformer (Xu et al.
2022, arXiv 2203.02891). [paper: the idea] [ours: which blocks, how often, on which grid]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pseudolabel.errors import InputError
from pseudolabel.models.backbone import Backbone


def middle_blocks(depth: int) -> range:
    """The blocks whose attention is read: from the middle on, without the last sixth.

    The last blocks gather what the class token needs, and tie patches together that are not alike: with them maps are
    worse (benchmarks/README.md). [ours]

    Args:
        depth: Blocks of the ViT.
    """
    first = depth // 2
    return range(first, max(first + 1, depth * 5 // 6))


def require_attention(backbone: Backbone, times: int, name: str) -> None:
    """Refuse to pass maps on where there is no attention to pass them along.

    Args:
        backbone: The feature extractor.
        times: What ``--propagate`` asks for.
        name: The network, for the message.

    Raises:
        InputError: It is no plain ViT, and propagation is asked for.
    """
    if times and not backbone.attends:
        raise InputError(f"--propagate {times}: {name} has no attention between patches as plain ViTs do; leave it out")


class _Reading(TorchFunctionMode, ABC):
    """While it lasts, sees queries and keys of the patches in one forward pass of a plain ViT, block after block."""

    def __init__(self, blocks: Sequence[int], prefix: int) -> None:
        super().__init__()
        self._blocks, self._prefix = blocks, prefix
        self._block = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the function, and reads the attention of those blocks that are wanted."""
        if func is F.scaled_dot_product_attention:
            if self._block in self._blocks:
                self.read(args[0][:, :, self._prefix :], args[1][:, :, self._prefix :])
            self._block += 1
        return func(*args, **(kwargs or {}))

    @abstractmethod
    def read(self, queries: Tensor, keys: Tensor) -> None:
        """Called with (B, heads, N, d) each."""


class Attending(_Reading):
    """While it lasts, keeps what patches attend to in one forward pass of a plain ViT.

    Attention is read off the fused operation's queries and keys, head by head: all heads of all blocks at once would
    take more memory than the pass itself.

    Args:
        backbone: A plain ViT; see ``Backbone.attends``.
        blocks: Those that are read, ascending, from 0; None: ``middle_blocks``.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int] | None = None) -> None:
        super().__init__(blocks or middle_blocks(backbone.depth), backbone.prefix_tokens)
        self._sum: Tensor | None = None

    def read(self, queries: Tensor, keys: Tensor) -> None:
        """Adds a block's attention."""
        found = mean_attention(queries, keys)
        self._sum = found if self._sum is None else self._sum + found

    @property
    def complete(self) -> bool:
        """Whether the pass came as far as the last block that is read."""
        return self._block > self._blocks[-1]

    def affinity(self, mirrored: tuple[int, int] | None = None) -> Tensor:
        """What was kept.

        Args:
            mirrored: Rows and columns of the grid, where the pass was of images and their mirror images, these last:
                the mean of both. None: it was of images alone.

        Returns:
            float32 (B, N, N), N patches row by row: how much each (row) attends to each (column), averaged over heads
            and blocks. Rows sum to 1.

        Raises:
            ValueError: There was no forward pass, or it ended before the last block that is read.
        """
        if self._sum is None or not self.complete:
            raise ValueError(f"attention is read up to block {self._blocks[-1]}, {self._block} blocks were computed")
        found = self._sum / self._sum.sum(dim=2, keepdim=True)
        return found if mirrored is None else with_mirrored(found, mirrored)


class Scores(_Reading):
    """While it lasts, keeps a plain ViT's queries and keys, for the attention scores of some pairs of patches.

    Args:
        backbone: A plain ViT; see ``Backbone.attends``.
        blocks: Those that are kept, ascending, from 0.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int]) -> None:
        super().__init__(blocks, backbone.prefix_tokens)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def read(self, queries: Tensor, keys: Tensor) -> None:
        """Keeps a block's."""
        self._kept.append((queries.float(), keys.float()))

    def of_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """(q_i k_j + q_j k_i) / sqrt(d) of every head of every block that is kept.

        Args:
            first: int64 (P,), patches i.
            second: int64 (P,), patches j.

        Returns:
            float32 (B, P, blocks x heads).
        """
        found = []
        for queries, keys in self._kept:
            there = (queries[:, :, first] * keys[:, :, second]).sum(dim=3)
            back = (queries[:, :, second] * keys[:, :, first]).sum(dim=3)
            found.append((there + back) * queries.shape[3] ** -0.5)
        return torch.cat(found, dim=1).transpose(1, 2)


def mean_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention averaged over heads, softmax(q k^T / sqrt(d)).

    Args:
        queries: (B, heads, N, d).
        keys: Likewise.

    Returns:
        float32 (B, N, N).
    """
    batch, heads, cells, width = queries.shape
    total = torch.zeros(batch, cells, cells, device=queries.device)
    for head in range(heads):
        scores = queries[:, head] @ keys[:, head].transpose(1, 2)
        total += (scores.float() * width**-0.5).softmax(dim=2)
    return total / heads


@torch.no_grad()
def patch_affinity(backbone: Backbone, images: Tensor, *, flip: bool, blocks: Sequence[int] | None = None) -> Tensor:
    """What the patches of images attend to; the blocks behind those that are read are not computed.

    Args:
        backbone: A plain ViT; see ``Backbone.attends``.
        images: Normalised (B, 3, H, W).
        flip: Also look at the mirrored images, and take the mean.
        blocks: As of ``Attending``.

    Returns:
        As of ``Attending.affinity``, on the grid of ``backbone``'s maps.
    """
    last = (blocks or middle_blocks(backbone.depth))[-1]
    with Attending(backbone, blocks) as attending:
        found = backbone.block(torch.cat([images, images.flip(3)]) if flip else images, last)
    affinity: Tensor = attending.affinity((found.shape[2], found.shape[3]) if flip else None)
    return affinity


def with_mirrored(affinity: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of what patches attend to in images and in their mirror images.

    Args:
        affinity: (2B, h w, h w), the mirrored images' last.
        grid: h and w.

    Returns:
        (B, h w, h w).
    """
    straight, mirrored = affinity.chunk(2)
    order = torch.arange(grid[0] * grid[1], device=affinity.device).reshape(grid).flip(1).flatten()
    return (straight + mirrored[:, order][:, :, order]) / 2


def propagate(maps: Tensor, affinity: Tensor, times: int, inside: Tensor | None = None) -> Tensor:
    """Pass maps on along an affinity: M becomes A M, as often as asked for.

    Each cell then has the mean of the map over the cells that it attends to.

    Args:
        maps: float (B, C, h, w).
        affinity: float32 (B, h w, h w), rows summing to 1.
        times: How often; 0 leaves the maps as they are.
        inside: bool (B, h, w), False where a cell is padding, which nobody attends to; None: there is none.

    Returns:
        float32 (B, C, h, w).
    """
    if inside is not None:
        affinity = affinity * inside.flatten(1)[:, None]
        affinity = affinity / affinity.sum(dim=2, keepdim=True).clamp(min=torch.finfo(affinity.dtype).tiny)
    cells = maps.float().flatten(2).transpose(1, 2)
    with torch.autocast(maps.device.type, enabled=False):
        for _ in range(times):
            cells = affinity.bmm(cells)
    return cells.transpose(1, 2).reshape(maps.shape)
