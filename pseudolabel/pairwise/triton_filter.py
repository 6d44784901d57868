"""The exact filter as one fused Triton kernel: a tile of A lives in registers only, as in attention.

A program makes the rows of A for a block of pixels, a tile at a time: the exponent from differences of the features,
one dimension after the other (the expanded product of ``exact`` would cancel, and tensor cores would round its terms),
then its exponential, then the product of the tile with the maps on tensor cores, in three TF32 passes, which together
are about as exact as float32.

It has been run in Triton's interpreter and compiled for compute capabilities 8.0 and 9.0, but not run on a GPU yet. Its
tile sizes are the largest with which nothing spills from the registers there; they are not tuned.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64
_COLUMNS = 32
_MOST_MAPS = 64  # a program's; more are done by further programs, each of which makes A again


def triton_filter(features: Tensor, maps: Tensor) -> Tensor:
    """A @ S.

    Args:
        features: float32 (B, N, D), divided by their widths.
        maps: float32 (B, K, N).

    Returns:
        float32 (B, K, N).
    """
    batch, points, dimensions = features.shape
    count = maps.shape[1]
    filtered = torch.empty_like(maps, memory_format=torch.contiguous_format)
    padded = min(_MOST_MAPS, max(16, triton.next_power_of_2(count)))  # 16 is the least that a tensor core takes
    grid = (triton.cdiv(points, _ROWS), triton.cdiv(count, padded), batch)
    with torch.cuda.device(features.device.index if features.is_cuda else -1):  # Triton launches on the current device
        _kernel[grid](
            features.mT.contiguous(),  # a dimension's values lie side by side
            maps.contiguous(),
            filtered,
            points,
            count,
            dimensions=dimensions,
            padded=padded,
            row_block=_ROWS,
            column_block=_COLUMNS,
        )
    return filtered


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _kernel(
    features: tl.tensor,
    maps: tl.tensor,
    filtered: tl.tensor,
    points: tl.tensor,
    count: tl.tensor,
    dimensions: tl.constexpr,
    padded: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
) -> None:
    image = tl.program_id(2).to(tl.int64)
    features += image * dimensions * points
    maps += image * count * points
    filtered += image * count * points
    rows = tl.program_id(0) * row_block + tl.arange(0, row_block)
    chosen = tl.program_id(1).to(tl.int64) * padded + tl.arange(0, padded)
    total = tl.zeros([row_block, padded], dtype=tl.float32)
    for first in range(0, points, column_block):
        columns = first + tl.arange(0, column_block)
        distance = tl.zeros([row_block, column_block], dtype=tl.float32)
        for dimension in tl.static_range(dimensions):
            here = tl.load(features + dimension * points + rows, mask=rows < points, other=0.0)
            there = tl.load(features + dimension * points + columns, mask=columns < points, other=0.0)
            difference = here[:, None] - there[None, :]
            distance += difference * difference
        inside = (columns[:, None] < points) & (chosen[None, :] < count)
        values = tl.load(maps + chosen[None, :] * points + columns[:, None], mask=inside, other=0.0)
        total = tl.dot(tl.exp(-0.5 * distance), values, total, input_precision="tf32x3")
    inside = (rows[:, None] < points) & (chosen[None, :] < count)
    tl.store(filtered + chosen[None, :] * points + rows[:, None], total, mask=inside)
