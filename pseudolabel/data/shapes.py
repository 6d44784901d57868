"""The shapes that weak labels are made of. Pixels count from 0; x goes right, y down."""

from __future__ import annotations

from typing import NamedTuple


class Point(NamedTuple):
    """One labelled pixel: its class index (0 is background), its column and row, and the file and entry it is from."""

    label: int
    x: int
    y: int
    where: str = ""


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
