"""Gaussian filtering in several dimensions on the permutohedral lattice (Adams, Baek & Davis 2010).

The kernel matrix A with A_ij = exp(-|f_i - f_j|^2 / 2) is never formed. Features are embedded in the hyperplane of
R^(d+1) whose coordinates sum to 0, where the permutohedral lattice lies; every point shares its value among the d + 1
corners of the simplex around it (splat), the corners' values are blurred along the d + 1 directions of the lattice
(blur) and read back at the points (slice). Time and memory grow with the number of points, not with its square.

Corners are found by a key of 64 bits, the scalar product modulo 2^64 of their whole coordinates with fixed random odd
numbers. Keys are additive, so that the corners of one simplex, and neighbours, differ by sums of these numbers. Two
corners out of m get the same key with a probability of about m^2 / 2^65: 3e-8 for a million.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.pairwise.jit import compiled
from pseudolabel.pairwise.rows import add_share, blur_row, mix_rows, transpose

DIMENSIONS = range(2, 17)
"""Feature dimensions that a lattice can have."""

_WIDTHS = (1, 2, 4, 8, 16)  # how many maps are filtered together, each point's values in one vector register
_LINE = 16  # float32 in a cache line: the widest rows, each of which then lies in one line
_BLOCK = 128  # points whose values are turned from planes to rows, or back, together: stays in the first-level cache
_MULTIPLIERS = np.random.default_rng(2010).integers(0, 2**63, DIMENSIONS.stop, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)


class Lattice:
    """The lattice around a set of points, built once, which then filters any number of maps.

    Attributes:
        points: N.
        dimensions: d.
        vertices: How many corners the points' simplices have.
    """

    def __init__(self, features: np.ndarray) -> None:
        """Build the lattice.

        Args:
            features: float32 (N, d), N >= 1, d in 2-16: each divided by its width, so that the kernel is
                exp(-|f_i - f_j|^2 / 2).

        Raises:
            ValueError: Another shape or dtype, or a feature that is no number or infinite or beyond 2^20 widths.
        """
        if (
            features.dtype != np.float32
            or features.ndim != 2
            or features.shape[1] not in DIMENSIONS
            or not len(features)
        ):
            wanted = f"float32 (N, d) with N >= 1 and d in {DIMENSIONS.start}-{DIMENSIONS.stop - 1}"
            raise ValueError(f"features must be {wanted}, found {features.dtype} {features.shape}")
        if not np.abs(features).max() <= 2**20:  # also refuses NaN
            raise ValueError("features must be finite and within 2^20 widths of 0; is a width far too small?")
        self.points, self.dimensions = features.shape
        multipliers = _MULTIPLIERS[: self.dimensions + 1]
        step = multipliers.sum()
        keys, self._shares = _simplices(self.dimensions)(np.ascontiguousarray(features), multipliers, step)
        self._corners, known, table = _number(keys)
        self._neighbours = _neighbours(known, table, step - np.uint64(self.dimensions + 1) * multipliers)
        self.vertices: int = self._neighbours.shape[1] - 1

    def filter(
        self,
        maps: np.ndarray,
        scale: np.ndarray | None = None,
        *,
        symmetric: bool = True,
        threads: int = 1,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """``diag(scale) A diag(scale)`` times each map, A approximated.

        Args:
            maps: float32 (K, N), K >= 0.
            scale: float32 (N,); None is all ones. Normalises a kernel, for instance, without more passes.
            symmetric: Blur in both orders of the directions and average, which makes A symmetric to rounding. In one
                order it is so but for directions in which corners are missing, and quicker.
            threads: How many threads share the maps; the result does not depend on it.
            out: float32 (K, N), what the result is added to; None is zeros.

        Returns:
            float32 (K, N), ``out`` where it is given.

        Raises:
            ValueError: Another shape or dtype.
        """
        if maps.dtype != np.float32 or maps.ndim != 2 or maps.shape[1] != self.points:
            raise ValueError(f"maps must be float32 (K, {self.points}), found {maps.dtype} {maps.shape}")
        maps = np.ascontiguousarray(maps)
        scale = np.ones(self.points, np.float32) if scale is None else np.ascontiguousarray(scale)
        if scale.shape != (self.points,) or scale.dtype != np.float32:
            raise ValueError(f"scale must be float32 ({self.points},), found {scale.dtype} {scale.shape}")
        result = np.zeros_like(maps) if out is None else out
        if result.shape != maps.shape or result.dtype != np.float32:
            raise ValueError(f"out must be float32 {maps.shape}, found {result.dtype} {result.shape}")

        def work(part: slice) -> None:
            self._filter(maps[part], scale, result[part], symmetric=symmetric)

        parts = _parts(len(maps))
        if threads <= 1 or len(parts) <= 1:
            for part in parts:
                work(part)
        else:
            with ThreadPoolExecutor(min(threads, len(parts))) as pool:
                list(pool.map(work, parts))
        return result

    def row_sums(self) -> np.ndarray:
        """A times ones: float32 (N,), the kernel's degree at each point; blurred in one order."""
        sums: np.ndarray = self.filter(np.ones((1, self.points), np.float32), symmetric=False)[0]
        return sums

    def _filter(self, maps: np.ndarray, scale: np.ndarray, result: np.ndarray, *, symmetric: bool) -> None:
        width = next(width for width in _WIDTHS if width >= len(maps))
        steps = _steps(self.dimensions, width)
        first, second = _aligned(self.vertices + 1, width), _aligned(self.vertices + 1, width)
        first[:] = 0
        second[0] = 0  # row 0 stands for corners that there are not
        steps.splat(maps, scale, self._corners, self._shares, first)
        forwards = np.arange(self.dimensions + 1)
        if symmetric:
            again = _aligned(*first.shape)
            again[:] = first
        blurred = steps.blur(first, second, self._neighbours, forwards)
        if symmetric:
            spare = first if blurred is second else second
            blurred += steps.blur(again, spare, self._neighbours, forwards[::-1].copy())
        factor = np.float32(_factor(self.dimensions) / (2 if symmetric else 1))
        steps.slice(blurred, self._corners, self._shares, scale, factor, result)


def position_colour(image: np.ndarray, sigma_xy: float, sigma_rgb: float) -> np.ndarray:
    """The bilateral kernel's features: float32 (H * W, 5), x and y in widths of position, R, G, B in widths of colour.

    Args:
        image: uint8 (H, W, 3), RGB.
        sigma_xy: Width in position, pixels, above 0.
        sigma_rgb: Width in colour, grey levels, above 0.

    Raises:
        ValueError: A width is not above 0.
    """
    if not (sigma_xy > 0 and sigma_rgb > 0):
        raise ValueError(f"kernel widths must be above 0, found xy {sigma_xy} and rgb {sigma_rgb}")
    height, width = image.shape[:2]
    features = np.empty((height, width, 5), np.float32)
    features[..., 0] = np.arange(width, dtype=np.float32) / np.float32(sigma_xy)
    features[..., 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sigma_xy)
    np.multiply(image, np.float32(1 / sigma_rgb), out=features[..., 2:], dtype=np.float32)
    return features.reshape(-1, 5)


def _parts(count: int) -> list[slice]:
    """``count`` maps in parts of the greatest width, the last as large as what is left."""
    return [slice(start, min(start + _WIDTHS[-1], count)) for start in range(0, count, _WIDTHS[-1])]


def _aligned(count: int, width: int) -> np.ndarray:
    """An empty float32 (count, width) that starts where a cache line does."""
    size = count * width
    memory = np.empty(size + _LINE, np.float32)
    start = -(memory.ctypes.data // memory.itemsize) % _LINE
    return memory[start : start + size].reshape(count, width)


def _factor(dimensions: int) -> float:
    """What splat, blur and slice together must be multiplied by so that they approximate A.

    Summed over all points of a dense set of unit density, a row of A gives (2 pi)^(d/2). The blur multiplies the total
    by 2^(d+1); reading back multiplies by the lattice's volume a corner, in units of the features:
    (d+1)^(d-1/2) / (sqrt(2/3) (d+1))^d.
    """
    d = dimensions
    return float((2 * math.pi * 2 / 3) ** (d / 2) * math.sqrt(d + 1) / 2 ** (d + 1))


@cache
def _simplices(dimensions: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """The keys and shares of each point's corners, compiled for one number of dimensions."""
    d = dimensions
    count = d + 1
    # Width sqrt(2/3) (d+1): the variance of splat, blur and slice together is then 1 in units of the features.
    scales = tuple(np.float32(math.sqrt(2 / 3) * count / math.sqrt((i + 1) * (i + 2))) for i in range(d))
    down, half = np.float32(1 / count), np.float32(0.5)

    @compiled
    def simplices(features: Any, multipliers: Any, step: Any) -> Any:
        n = features.shape[0]
        keys, shares = np.empty((n, count), np.uint64), np.empty((n, count), np.float32)
        elevated, rest = np.empty(count, np.float32), np.empty(count, np.float32)
        rank, order = np.empty(count, np.int64), np.empty(count, np.int64)
        share = np.empty(count + 1, np.float32)
        for p in range(n):
            total = np.float32(0)
            for i in range(d, 0, -1):
                value = features[p, i - 1] * scales[i - 1]
                elevated[i] = total - np.float32(i) * value
                total += value
            elevated[0] = total
            # The nearest lattice point whose coordinates are multiples of d + 1 ...
            excess = 0
            for i in range(count):
                whole = np.floor(elevated[i] * down + half)
                excess += int(whole)
                rest[i] = whole * np.float32(count)
                rank[i] = 0
            # ... and the order of the differences to it, which names the simplex.
            for i in range(d):
                here = elevated[i] - rest[i]
                for j in range(i + 1, count):
                    less = int(here < elevated[j] - rest[j])  # no branch, which would be guessed wrong half the time
                    rank[i] += less
                    rank[j] += 1 - less
            key = np.uint64(0)
            share[:] = 0
            for i in range(count):
                place = rank[i] + excess
                if place < 0:
                    place += count
                    rest[i] += np.float32(count)
                elif place > d:
                    place -= count
                    rest[i] -= np.float32(count)
                order[place] = i
                key += np.uint64(np.int64(rest[i])) * multipliers[i]
                part = (elevated[i] - rest[i]) * down
                share[d - place] += part
                share[d + 1 - place] -= part
            share[0] += np.float32(1) + share[count]
            for r in range(count):
                keys[p, r], shares[p, r] = key, share[r]
                key += step - np.uint64(count) * multipliers[order[d - r]]
        return keys, shares

    return simplices


@compiled
def _number(keys: Any) -> Any:
    """Number the different keys from 1, in the order in which they come.

    Returns:
        The numbers, uint32 like ``keys``: unsigned, so that no index is taken for one from the end; the key of each
        number, uint64; and a hash table of the numbers, uint32, in which 0 is a free slot.
    """
    n, count = keys.shape
    numbers = np.empty((n, count), np.uint32)
    bits = 2  # of a table of twice the keys that there can be: never full, and what is not used costs nothing
    while 1 << bits < 2 * n * count:
        bits += 1
    table = np.zeros(1 << bits, np.uint32)
    known = np.empty(n * count + 1, np.uint64)
    high, low = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
    used = 0
    last = np.zeros(count, np.uint32)
    for p in range(n):
        for r in range(count):
            key = keys[p, r]
            number = last[r]  # often the same as the point's before: neighbours in the image are alike
            if number == 0 or known[number] != key:
                slot = key >> high
                number = table[slot]
                while number != 0 and known[number] != key:
                    slot = (slot + np.uint64(1)) & low
                    number = table[slot]
                if number == 0:
                    used += 1
                    number = np.uint32(used)
                    known[used] = key
                    table[slot] = number
                last[r] = number
            numbers[p, r] = number
    return numbers, known[: used + 1], table


@compiled
def _neighbours(known: Any, table: Any, shifts: Any) -> Any:
    """The corners before and behind each corner in each direction: uint32 (d + 1, corners + 1, 2), 0 for none."""
    bits = 0
    while 1 << bits < table.shape[0]:
        bits += 1
    high, low = np.uint64(64 - bits), np.uint64(table.shape[0] - 1)
    neighbours = np.zeros((shifts.shape[0], known.shape[0], 2), np.uint32)
    for i in range(shifts.shape[0]):
        for v in range(1, known.shape[0]):
            key = known[v] + shifts[i]
            slot = key >> high
            other = table[slot]
            while other != 0 and known[other] != key:
                slot = (slot + np.uint64(1)) & low
                other = table[slot]
            if other != 0:
                neighbours[i, v, 1] = other
                neighbours[i, other, 0] = np.uint32(v)
    return neighbours


class _Steps(NamedTuple):
    splat: Callable[..., None]
    blur: Callable[..., np.ndarray]
    slice: Callable[..., None]


@cache
def _steps(dimensions: int, width: int) -> _Steps:
    """The three steps, compiled for one number of dimensions and of maps; fewer maps leave the last columns zero."""
    count = dimensions + 1

    @compiled
    def splat(maps: Any, scale: Any, corners: Any, shares: Any, values: Any) -> None:
        planes, rows = np.zeros((width, _BLOCK), np.float32), np.empty((_BLOCK, width), np.float32)
        for start in range(0, maps.shape[1], _BLOCK):
            size = min(_BLOCK, maps.shape[1] - start)
            factor = scale[start : start + size]
            for k in range(maps.shape[0]):
                source, to = maps[k, start : start + size], planes[k]
                for i in range(size):
                    to[i] = source[i] * factor[i]
            for i in range(0, size, width):
                transpose(rows, i, 0, planes, 0, i, width)
            for i in range(size):
                for r in range(count):
                    add_share(values, corners[start + i, r], shares[start + i, r], rows, i, width)

    @compiled
    def blur(values: Any, spare: Any, neighbours: Any, directions: Any) -> Any:
        for i in directions:
            near = neighbours[i]
            for v in range(1, values.shape[0]):
                blur_row(spare, values, v, near[v, 0], near[v, 1], width)
            values, spare = spare, values
        return values

    @compiled
    def slice_(values: Any, corners: Any, shares: Any, scale: Any, factor: Any, result: Any) -> None:
        planes, rows = np.empty((width, _BLOCK), np.float32), np.zeros((_BLOCK, width), np.float32)
        for start in range(0, result.shape[1], _BLOCK):
            size = min(_BLOCK, result.shape[1] - start)
            factors = scale[start : start + size]
            for i in range(size):
                mix_rows(rows, i, values, corners, shares, start + i, count, width)
            for i in range(0, size, width):
                transpose(planes, 0, i, rows, i, 0, width)
            for k in range(result.shape[0]):
                source, to = planes[k], result[k, start : start + size]
                for i in range(size):
                    to[i] += source[i] * factors[i] * factor

    return _Steps(splat, blur, slice_)
