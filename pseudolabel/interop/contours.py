"""Polygons through the centres of boundary pixels, as YOLO and LabelMe have them; OpenCV draws them again.

Made by supervision: one polygon a connected region, holes joined to it by a seam. What it cannot outline, regions of
one pixel or one line of pixels, is given two or three points.
"""

from __future__ import annotations

import numpy as np

from pseudolabel.interop.extra import require


def centre_polygons(inside: np.ndarray, what: str) -> list[np.ndarray]:
    """The polygons of a mask.

    Args:
        inside: bool (H, W).
        what: The format, as a flag, for an error.

    Returns:
        int64 (n, 2) each, n >= 3: x and y of pixels.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    from scipy import ndimage

    utils = require("supervision.dataset.utils", "supervision", what)
    numbered, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    found: list[np.ndarray] = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
        piece = np.pad(numbered[rows, columns] == number, 1)  # without an edge that the polygon would stop at
        polygons = utils.approximate_mask_with_polygons(piece, approximation_percentage=0.0, bridge_holes=True)
        rings = [np.asarray(polygon, dtype=np.int64) for polygon in polygons] or [_thin(piece)]
        corner = np.array([columns.start - 1, rows.start - 1])
        found += [ring + corner for ring in rings]
    return found


def _thin(piece: np.ndarray) -> np.ndarray:
    """A region without an extent in some direction as a polygon of its ends."""
    rows, columns = np.nonzero(piece)
    ends = np.array([(columns[0], rows[0]), (columns[-1], rows[-1])], dtype=np.int64)
    return np.concatenate([ends, ends[:1]])


def draw_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels within a polygon and under its outline, by the even-odd rule.

    Args:
        points: float (n, 2), x and y of pixels; rounded.
        size: Height and width.

    Returns:
        bool (H, W).
    """
    height, width = size
    corners = np.rint(points).astype(np.int64)
    drawn, crossed = np.zeros(size, dtype=bool), np.zeros((height, width + 1), dtype=np.int64)
    for (x, y), (right, down) in zip(corners.tolist(), np.roll(corners, -1, axis=0).tolist(), strict=True):
        steps = np.linspace(0, 1, max(abs(right - x), abs(down - y)) + 1)
        columns, rows = (np.rint(np.stack([x + steps * (right - x), y + steps * (down - y)]))).astype(np.int64)
        seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        drawn[rows[seen], columns[seen]] = True
        if y != down:
            (x, y), (right, down) = ((x, y), (right, down)) if y < down else ((right, down), (x, y))
            rows = np.arange(max(y, 0), min(down, height))
            columns = np.floor(x + (rows - y) * (right - x) / (down - y)).astype(np.int64) + 1
            np.add.at(crossed, (rows, columns.clip(0, width)), 1)
    return np.asarray(drawn | (np.cumsum(crossed[:, :width], axis=1) % 2 == 1))
