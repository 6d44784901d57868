"""The shapes that weak labels are made of. Pixels count from 0; x goes right, y down."""

from __future__ import annotations

import math
from typing import NamedTuple


class Point(NamedTuple):
    """One labelled pixel: its class index (0 is background), its column and row, and the file and entry it is from.

    ``between`` says that it was given as a place between pixels, with fractions, and so may be on the far border.
    """

    label: int
    x: int
    y: int
    where: str = ""
    between: bool = False


class Polyline(NamedTuple):
    """One stroke: its class index (0 is background), its corners (x, y), and the file and entry it is from."""

    label: int
    corners: tuple[tuple[float, float], ...]
    where: str = ""


class Box(NamedTuple):
    """One object's class index and its edges; the pixels from ``left`` up to ``right``, less ``right``, are inside.

    ``where`` is the file and entry that it is from.
    """

    label: int
    left: float
    top: float
    right: float
    bottom: float
    where: str = ""


def cells(box: Box, down: float = 1, right: float = 1) -> tuple[slice, slice]:
    """The rows and columns of a grid that a box touches.

    Args:
        box: In pixels.
        down: Rows of the grid in a pixel.
        right: Columns of the grid in a pixel.
    """
    return (
        slice(max(0, math.floor(box.top * down)), max(0, math.ceil(box.bottom * down))),
        slice(max(0, math.floor(box.left * right)), max(0, math.ceil(box.right * right))),
    )
