"""Outlines of masks along the edges of pixels, which pycocotools draws again without the loss of a pixel."""

from __future__ import annotations

import numpy as np

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up
_TURNS = (1, 0, 3)  # to the right first, so that pixels that touch at a corner only have outlines of their own


def pixel_outlines(inside: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask, one a piece of pixels that touch at their sides.

    Args:
        inside: bool (H, W).

    Returns:
        int64 (n, 2) each: x and y of the corners in edges of pixels, 0 to W and 0 to H, clockwise. Holes are joined to
        the outline around them by a cut of no width, so that the even-odd rule leaves them out.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(inside)
    outlines: list[np.ndarray | None] = [None] * count
    for piece, ring in _rings(pieces):
        outer = outlines[piece - 1]
        outlines[piece - 1] = ring if outer is None else np.concatenate([outer, ring, ring[:1], outer[-1:]])
    return [outline for outline in outlines if outline is not None]


def _rings(pieces: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Piece and corners of every ring of edges between a piece and what is no piece, outer rings first.

    The piece lies on the right of each edge, seen along it.
    """
    padded = np.pad(pieces, 1)
    shifted = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))  # where the edge on each of these sides of a pixel begins
    edges: dict[tuple[int, int], dict[int, int]] = {}
    for direction, (other, (right, down)) in enumerate(zip(shifted, corners, strict=True)):
        rows, columns = np.nonzero((pieces > 0) & (other == 0))
        numbers = pieces[rows, columns].tolist()
        for x, y, piece in zip((columns + right).tolist(), (rows + down).tolist(), numbers, strict=True):
            edges.setdefault((x, y), {})[direction] = piece
    found = []
    for start in sorted(edges, key=lambda place: (place[1], place[0])):
        while edges[start]:
            direction = min(edges[start])
            found.append((edges[start][direction], _trace(edges, start, direction)))
    return found


def _trace(edges: dict[tuple[int, int], dict[int, int]], start: tuple[int, int], direction: int) -> np.ndarray:
    """Follow one ring, removing its edges; returns its corners."""
    corners, place = [start], start
    while True:
        del edges[place][direction]
        place = place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1]
        turns = [(direction + turn) % 4 for turn in _TURNS if (direction + turn) % 4 in edges[place]]
        if not turns:  # back at the start
            return np.array(corners, dtype=np.int64)
        if turns[0] != direction:
            corners.append(place)
        direction = turns[0]
