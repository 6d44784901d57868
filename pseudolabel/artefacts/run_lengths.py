"""Regions of one image as run lengths, and what can be counted in them without decoding a mask.

Runs are COCO's: pixels are counted down the columns, the first column first, and runs are outside and inside by turns,
beginning outside. Only the first may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NO_CLASS = 255


@dataclass(frozen=True)
class Regions:
    """The regions of one image, which may overlap and need not cover it.

    Attributes:
        size: Height and width of the image, pixels.
        runs: uint32 (V,), the run lengths of all regions one after another.
        offset: int64 (R + 1,): region r is ``runs[offset[r]:offset[r + 1]]``.
        score: float32 (R,), at least 0, as the source states it; NaN where it states none.
        label: uint8 (R,), index of the class, 255 where there is none.
        box: float32 (R, 4), left, top, right and bottom edge of the box that it was prompted with; NaN without one.
        prompt: What each was prompted with, in words; may be empty.
    """

    size: tuple[int, int]
    runs: np.ndarray
    offset: np.ndarray
    score: np.ndarray
    label: np.ndarray
    box: np.ndarray
    prompt: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offset) - 1

    @cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stretches of pixels inside of regions.

        Returns:
            int64 (S,) each: index of the region, ascending; first pixel, and pixel after the last, in column order.
        """
        region = np.repeat(np.arange(len(self)), np.diff(self.offset))
        total = np.cumsum(self.runs, dtype=np.int64)
        before = np.concatenate([np.zeros(1, dtype=np.int64), total])[self.offset[:-1]]
        end = total - before[region]
        inside = (np.arange(len(self.runs)) - self.offset[region]) % 2 == 1
        return region[inside], (end - self.runs)[inside], end[inside]

    @cached_property
    def area(self) -> np.ndarray:
        """int64 (R,), pixels."""
        region, start, end = self.spans
        found: np.ndarray = np.bincount(region, end - start, minlength=len(self)).astype(np.int64)
        return found

    @cached_property
    def bounds(self) -> np.ndarray:
        """int64 (R, 4): left, top, right and bottom edge of each region; the pixels before the last two are inside."""
        height = self.size[0]
        region, start, end = self.spans
        left, right = start // height, (end - 1) // height
        whole = left < right  # goes on at the top of the next column
        found = np.empty((len(self), 4), dtype=np.int64)
        for column, (values, pick, first) in enumerate(
            (
                (left, np.minimum, self.size[1]),
                (np.where(whole, 0, start % height), np.minimum, height),
                (right + 1, np.maximum, 0),
                (np.where(whole, height, (end - 1) % height + 1), np.maximum, 0),
            )
        ):
            found[:, column] = first
            pick.at(found[:, column], region, values)
        return found

    def mask(self, region: int) -> np.ndarray:
        """One region: bool (H, W)."""
        runs = self.runs[self.offset[region] : self.offset[region + 1]]
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(flat.reshape(self.size[1], self.size[0]).T)

    def masks(self) -> Iterator[np.ndarray]:
        """All regions, one at a time: bool (H, W)."""
        return (self.mask(region) for region in range(len(self)))

    def sums(self, maps: np.ndarray) -> np.ndarray:
        """Sums of maps over each region.

        Args:
            maps: (K, H, W), numbers or bool.

        Returns:
            float64 (R, K).
        """
        region, start, end = self.spans
        found = np.empty((len(self), len(maps)))
        for index, values in enumerate(maps):
            total = np.concatenate([[0.0], np.cumsum(values.ravel(order="F"), dtype=np.float64)])
            found[:, index] = np.bincount(region, total[end] - total[start], minlength=len(self))
        return found

    def spread(self, values: np.ndarray) -> np.ndarray:
        """For every pixel the sum of the values of the regions that it lies in.

        Args:
            values: float (R, K).

        Returns:
            float64 (K, H, W).
        """
        height, width = self.size
        region, start, end = self.spans
        found = np.empty((values.shape[1], height, width))
        for index, value in enumerate(values.T):
            steps = np.bincount(start, value[region], minlength=height * width + 1)
            steps -= np.bincount(end, value[region], minlength=height * width + 1)
            found[index] = np.cumsum(steps)[:-1].reshape(width, height).T
        return found

    def covered(self) -> np.ndarray:
        """Which pixels lie in any region: bool (H, W)."""
        return np.asarray(self.spread(np.ones((len(self), 1)))[0] > 0.5)

    def painted(self, canvas: np.ndarray, order: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A label map with regions painted over it, later ones over earlier ones.

        Args:
            canvas: uint8 (H, W); not changed.
            order: int (P,), regions, the lowest first.
            values: uint8 (P,), the label of each.
        """
        flat = canvas.ravel(order="F").copy()
        _, start, end = self.spans
        first = np.searchsorted(self.spans[0], np.arange(len(self) + 1))
        for region, value in zip(order.tolist(), values.tolist(), strict=True):
            for span in range(first[region], first[region + 1]):
                flat[start[span] : end[span]] = value
        return np.ascontiguousarray(flat.reshape(self.size[1], self.size[0]).T)


def make_regions(
    size: tuple[int, int],
    runs: Sequence[np.ndarray],
    *,
    score: Sequence[float | None] | None = None,
    label: Sequence[int | None] | None = None,
    box: Sequence[Sequence[float] | None] | None = None,
    prompt: Sequence[str] | None = None,
) -> Regions:
    """Regions of their run lengths.

    Args:
        size: Height and width of the image, pixels.
        runs: Of each region.
        score: Of each region, None where there is none; None: none has any. So the others.
        label: Class indices.
        box: Left, top, right, bottom.
        prompt: Words.
    """
    count = len(runs)
    lengths = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([len(run) for run in runs], dtype=np.int64)])
    boxes = [(np.nan,) * 4 if edges is None else edges for edges in box or [None] * count]
    return Regions(
        size,
        np.concatenate([np.zeros(0, np.uint32), *runs]).astype(np.uint32),
        lengths,
        np.asarray([np.nan if value is None else value for value in score or [None] * count], dtype=np.float32),
        np.asarray([NO_CLASS if value is None else value for value in label or [None] * count], dtype=np.uint8),
        np.asarray(boxes, dtype=np.float32).reshape(count, 4),
        tuple(prompt or [""] * count),
    )


def mask_runs(mask: np.ndarray) -> np.ndarray:
    """The run lengths of one mask, bool (H, W): uint32 (V,)."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=np.int8(0), append=np.int8(0)))
    return _from_edges(edges, flat.size)


def label_runs(labels: np.ndarray, values: Iterable[int]) -> list[np.ndarray]:
    """The run lengths of some values of a label map, each of which occurs.

    Args:
        labels: int (H, W).
        values: For each of them the pixels that have it are a region.
    """
    flat = labels.ravel(order="F")
    start = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    end = np.append(start[1:], flat.size)
    order = np.argsort(flat[start], kind="stable")
    start, end, value = start[order], end[order], flat[start][order]
    found = []
    for wanted in values:
        own = slice(np.searchsorted(value, wanted), np.searchsorted(value, wanted, side="right"))
        found.append(_from_edges(np.stack([start[own], end[own]], axis=1).ravel(), flat.size))
    return found


def _from_edges(edges: np.ndarray, pixels: int) -> np.ndarray:
    """Run lengths of the places where inside begins and ends by turns."""
    runs = np.diff(edges, prepend=0, append=pixels).astype(np.uint32)
    return runs[:-1] if runs[-1] == 0 else runs
