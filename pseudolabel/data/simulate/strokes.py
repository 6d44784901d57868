"""How weak labels are simulated from a mask: strokes along an object's middle, points, boxes. [ours]

A stroke is what a person draws through an object: one smooth line along its middle, from end to end, without the
branches that a skeleton has. It is the cheapest path between two far ends of the object's body, where a step costs the
more the nearer it is to the outline (Dijkstra on a reduced grid), smoothed as far as it stays inside, with a slow
wobble across it. Distances to the outline are Euclidean, in pixels.
"""

from __future__ import annotations

import math

import numpy as np

from pseudolabel.data.shapes import Box, Point

_GRID = 80  # long side of the grid on which paths are sought: fine enough for limbs, small enough for milliseconds
_BODY = 0.35  # of the largest distance to the outline: nearer than that begin tips, where nobody starts a stroke
_PULL = 2.0  # power of the cost of nearness to the outline
_SPACING = 0.7  # pixels between the dots that make a stroke: less than a pixel, so that it has no gaps
_SMOOTHING = 0.08  # of a stroke's length: the width of the Gaussian that smooths it
_WAVES = 0.12  # of a stroke's length: how slow the wobble is


def depth_of(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one outside, the image's border included: float64 (H, W), 0 outside."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1])


def window_of(inside: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of an area bool (H, W) of at least one pixel. Depths are the same in that window alone."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def middle_point(inside: np.ndarray, label: int, rng: np.random.Generator, wobble: float) -> Point:
    """A point near the centre of the largest disc inside an object: up to ``wobble`` of its radius away, uniformly.

    Less a pixel of the radius, so that rounding cannot lead out of the object.
    """
    window = window_of(inside)
    depth = depth_of(inside[window])
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    reach = wobble * max(0.0, float(depth[row, column]) - 1) * math.sqrt(rng.random())
    angle = rng.uniform(0, 2 * math.pi)
    x, y = round(column + reach * math.cos(angle)), round(row + reach * math.sin(angle))
    return Point(label, window[1].start + x, window[0].start + y)


def stroke(
    inside: np.ndarray, rng: np.random.Generator, *, length: float = 1.0, wobble: float = 0.0, width: int = 3
) -> np.ndarray:
    """Draw one stroke through an object.

    Args:
        inside: bool (H, W): the object, one connected piece of at least one pixel.
        rng: Decides on which part a shortened stroke is, and on the wobble. It is drawn from equally often whatever the
            length, so that of two strokes with equal generators the shorter is part of the longer.
        length: Share of the stroke that is kept, in (0, 1].
        wobble: How far it strays, as a share of the distance to the outline, in [0, 1].
        width: Its width, pixels.

    Returns:
        bool (H, W): the stroke, all of it inside the object.
    """
    place, noise = float(rng.random()), rng.normal(size=64)
    window = window_of(inside)
    depth = depth_of(inside[window])
    line = _wobbling(_smooth(_spine(depth), depth), depth, wobble, noise)
    last = len(line) - 1
    begin, end = place * (1 - length) * last, (place * (1 - length) + length) * last
    drawn = np.zeros(inside.shape, dtype=bool)
    drawn[window] = _dotted(line[math.floor(begin) : math.ceil(end) + 1], depth.shape, width) & inside[window]
    return drawn


def jittered_box(inside: np.ndarray, label: int, rng: np.random.Generator, jitter: float) -> Box:
    """A box around an object, each edge moved by up to ``jitter`` of its side, uniformly; inside the image.

    It covers two pixels or more along each axis that has two, since a box of VOC has different corners.
    """
    rows, columns = window_of(inside)
    top, bottom = _edges(rows.start, rows.stop, inside.shape[0], rng, jitter)
    left, right = _edges(columns.start, columns.stop, inside.shape[1], rng, jitter)
    return Box(label, left, top, right, bottom)


def _edges(low: int, high: int, limit: int, rng: np.random.Generator, jitter: float) -> tuple[int, int]:
    shift = np.rint(rng.uniform(-jitter, jitter, 2) * (high - low)).astype(int)
    low, high = max(0, low + int(shift[0])), min(limit, high + int(shift[1]))
    high = min(limit, max(high, low + 2))
    return max(0, min(low, high - 2)), high


def _spine(depth: np.ndarray) -> np.ndarray:
    """The path along an object's middle, float64 (P, 2) of row and column, from a reduced grid."""
    from scipy.sparse.csgraph import dijkstra

    places, deep = _reduced(depth)
    nodes = np.flatnonzero(deep > 0)
    plain, costly = (_graph(deep, places, power) for power in (0.0, _PULL))
    start = int(np.searchsorted(nodes, deep.argmax()))
    body = deep.ravel()[nodes] >= _BODY * deep.max()
    first = _farthest(dijkstra(plain, indices=start), body)
    last = _farthest(dijkstra(plain, indices=first), body)
    before = dijkstra(costly, indices=first, return_predecessors=True)[1]
    path = [last]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    return places.reshape(-1, 2)[nodes[path]].astype(np.float64)


def _farthest(distance: np.ndarray, body: np.ndarray) -> int:
    return int(np.where(body & np.isfinite(distance), distance, -1.0).argmax())


def _reduced(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell of a coarse grid the deepest pixel: int (h, w, 2) of row and column, and its depth (h, w)."""
    step = -(-max(depth.shape) // _GRID)
    height, width = (-(-side // step) for side in depth.shape)
    padded = np.pad(depth, ((0, height * step - depth.shape[0]), (0, width * step - depth.shape[1])))
    cells = padded.reshape(height, step, width, step).swapaxes(1, 2).reshape(height, width, step * step)
    best = cells.argmax(axis=2)
    row, column = np.mgrid[:height, :width] * step
    return np.stack([row + best // step, column + best % step], axis=-1), cells.max(axis=2)


def _graph(deep: np.ndarray, places: np.ndarray, power: float) -> object:
    """The cells inside, each joined to its 8 neighbours: length of the step, times its nearness to the outline."""
    from scipy.sparse import csr_array

    number = np.full(deep.shape, -1)
    number[deep > 0] = np.arange(np.count_nonzero(deep > 0))
    ends, costs = [], []
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, deep.shape[0] - rows), slice(max(0, -columns), deep.shape[1] - max(0, columns)))
        there = (slice(rows, None), slice(max(0, columns), deep.shape[1] + min(0, columns)))
        joined = (number[here] >= 0) & (number[there] >= 0)
        step = np.linalg.norm(places[here][joined] - places[there][joined], axis=1)
        near = deep.max() / ((deep[here][joined] + deep[there][joined]) / 2)
        ends.append(np.stack([number[here][joined], number[there][joined]]))
        costs.append(step * near**power)
    pairs, cost = np.concatenate(ends, axis=1), np.concatenate(costs)
    count = int(number.max()) + 1
    both = np.concatenate([pairs, pairs[::-1]], axis=1)
    return csr_array((np.concatenate([cost, cost]), (both[0], both[1])), shape=(count, count))


def _even(line: np.ndarray) -> np.ndarray:
    """A line with corners evenly apart."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0.0, along[-1], math.ceil(along[-1] / _SPACING) + 1)
    return np.stack([np.interp(wanted, along, line[:, axis]) for axis in (0, 1)], axis=1)


def _smooth(line: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """A line smoothed as much as it can be while it stays inside."""
    from scipy import ndimage

    even = _even(line)
    for share in (1.0, 0.7, 0.5, 0.3, 0.15):
        smoothed = np.asarray(ndimage.gaussian_filter1d(even, share * _SMOOTHING * len(even), axis=0, mode="nearest"))
        if (_depth_at(smoothed, depth) > np.minimum(1.0, _depth_at(even, depth) - 0.5)).all():
            return _even(smoothed)
    return even


def _wobbling(line: np.ndarray, depth: np.ndarray, wobble: float, noise: np.ndarray) -> np.ndarray:
    """A line moved across itself by slow waves, up to ``wobble`` of its distance to the outline."""
    from scipy import ndimage

    if len(line) < 3 or wobble == 0:
        return line
    fine = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(noise)), noise)
    slow = ndimage.gaussian_filter1d(fine, _WAVES * len(line))
    wave = np.clip(slow / max(float(slow.std()), 1e-9), -2, 2) / 2
    along = np.gradient(line, axis=0)
    across = np.stack([along[:, 1], -along[:, 0]], axis=1)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return _even(line + across * (wobble * wave * np.maximum(0.0, _depth_at(line, depth) - 1))[:, None])


def _depth_at(line: np.ndarray, depth: np.ndarray) -> np.ndarray:
    row, column = np.rint(line).astype(int).T
    return np.asarray(depth[np.clip(row, 0, depth.shape[0] - 1), np.clip(column, 0, depth.shape[1] - 1)])


def _dotted(line: np.ndarray, shape: tuple[int, ...], width: int) -> np.ndarray:
    """The union of discs of this diameter around the corners of a line: bool (H, W)."""
    from scipy import ndimage

    centres = np.zeros(shape, dtype=bool)
    row, column = np.rint(line).astype(int).T
    centres[np.clip(row, 0, shape[0] - 1), np.clip(column, 0, shape[1] - 1)] = True
    y, x = np.mgrid[:width, :width] - (width - 1) / 2
    return np.asarray(ndimage.binary_dilation(centres, y * y + x * x <= width * width / 4))
