"""Label maps as PNG files that look right in any viewer, and pictures for people: overlays and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pseudolabel.data.palette import PALETTE

_MARGIN = 10  # pixels around everything
_LINE = 22  # height of a line of text
_PANEL = 400  # long side of an overlay's panels
_CELL = (200, 160)  # width and height of a contact sheet's pictures
_DRAWN = 1600  # pixels, of the long side of what is painted before it is made smaller
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
_OPACITY = 0.65  # of colour over the photograph


def paint_labels(photograph: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lay classes in their palette colours over a photograph, with a white line around each.

    Args:
        photograph: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W); 0 shows the photograph as it is.

    Returns:
        uint8 (H, W, 3).
    """
    opacity = np.where(labels == 0, 0, _OPACITY)[..., None]
    painted: np.ndarray = (photograph * (1 - opacity) + PALETTE[labels] * opacity).astype(np.uint8)
    painted[_borders(np.where(labels == 255, 0, labels))] = 255
    return painted


def paint_heat(photograph: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over a grey photograph: dark where 0, over red to pale yellow where 1.

    Args:
        photograph: uint8 (H, W, 3), RGB.
        heat: float (H, W) in [0, 1].

    Returns:
        uint8 (H, W, 3).
    """
    grey = photograph.mean(axis=2, keepdims=True)
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(heat, steps, channel) for channel in _HEAT.T], axis=-1)
    return np.asarray(grey * (1 - _OPACITY) + colour * _OPACITY, dtype=np.uint8)


def overlay(
    photograph: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    heat: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> Image.Image:
    """Photograph, heat map, mask and ground truth side by side, with the names of the colours below.

    Args:
        photograph: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W), the mask.
        classes: Names by class index.
        heat: float (H, W) in [0, 1]; None leaves its panel out.
        truth: uint8 (H, W), ground truth; None leaves its panel out.
    """
    present = np.unique(labels)
    if truth is not None:
        present = np.union1d(present, np.unique(truth))
    photograph, labels = _thinned(photograph), _thinned(labels)
    panels = [("photograph", photograph)]
    if heat is not None:
        panels.append(("heat map", paint_heat(photograph, _thinned(heat))))
    panels.append(("mask", paint_labels(photograph, labels)))
    if truth is not None:
        panels.append(("ground truth", paint_labels(photograph, _thinned(truth))))
    pictures = [(title, _fitted(array, (_PANEL, _PANEL))) for title, array in panels]
    width, height = pictures[0][1].size
    cell = (max(width, 120), height)  # room for the title of a very narrow picture
    return sheet(pictures, len(pictures), cell, legend_entries(present, classes))


def contact_sheet(
    pictures: Iterable[tuple[str, np.ndarray, np.ndarray]], count: int, classes: Sequence[str]
) -> Image.Image:
    """Many small pictures on one sheet: each mask over its photograph, with its id; the names of the colours below.

    Args:
        pictures: Id, photograph uint8 (H, W, 3) and mask uint8 (H, W) of each; taken one at a time.
        count: How many there are.
        classes: Names by class index.
    """
    tiles, present = [], np.zeros(256, dtype=bool)
    for name, photograph, labels in pictures:
        tiles.append((name, _fitted(paint_labels(_thinned(photograph), _thinned(labels)), _CELL)))
        present[np.unique(labels)] = True
    columns = math.ceil(math.sqrt(count))
    return sheet(tiles, columns, _CELL, legend_entries(np.flatnonzero(present), classes))


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label: bool (H, W)."""
    found = np.zeros(labels.shape, dtype=bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    return found


def _thinned(array: np.ndarray) -> np.ndarray:
    """A large picture at fewer pixels, still several times as many as are shown of it."""
    step = max(1, max(array.shape[:2]) // _DRAWN)
    return array[::step, ::step]


def _fitted(array: np.ndarray, box: tuple[int, int]) -> Image.Image:
    """A picture scaled into a box of width and height."""
    height, width = array.shape[:2]
    factor = min(box[0] / width, box[1] / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Image.fromarray(array).resize(size, Image.Resampling.LANCZOS)


def legend_entries(present: np.ndarray, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Index and name of those present labels that have a colour, background left out."""
    named = {index: name for index, name in enumerate(classes) if index} | {255: "unlabelled"}
    return [(int(index), named[int(index)]) for index in present if int(index) in named]


def sheet(
    pictures: Sequence[tuple[str, Image.Image]], columns: int, cell: tuple[int, int], legend: Sequence[tuple[int, str]]
) -> Image.Image:
    """Titled pictures in rows, left to right, and a legend of palette colours below them.

    Args:
        pictures: Title and picture of each, none larger than a cell.
        columns: How many stand in a row.
        cell: Width and height of the room for one.
        legend: Class index and name of each colour to explain.
    """
    font = ImageFont.load_default(15)
    step = (cell[0] + _MARGIN, cell[1] + _LINE + _MARGIN)
    width = _MARGIN + columns * step[0]
    spots, below = _legend_spots(legend, font, width)
    top = _MARGIN + math.ceil(len(pictures) / columns) * step[1]
    page = Image.new("RGB", (width, top + below), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, picture) in enumerate(pictures):
        x, y = _MARGIN + number % columns * step[0], _MARGIN + number // columns * step[1]
        draw.text((x, y), _shortened(title, font, cell[0]), _INK, font)
        page.paste(picture, (x + (cell[0] - picture.width) // 2, y + _LINE))
    for (index, name), (x, y) in zip(legend, spots, strict=True):
        draw.rectangle((x, top + y + 1, x + 16, top + y + 17), tuple(PALETTE[index].tolist()), _INK)
        draw.text((x + 23, top + y), name, _INK, font)
    return page


def _legend_spots(
    legend: Sequence[tuple[int, str]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> tuple[list[tuple[int, int]], int]:
    """Where each entry begins, row by row, and the height of all rows."""
    spots, x, y = [], _MARGIN, 0
    for _, name in legend:
        needed = 40 + math.ceil(font.getlength(name))
        if x > _MARGIN and x + needed > width:
            x, y = _MARGIN, y + _LINE + 2
        spots.append((x, y))
        x += needed
    return spots, (y + _LINE + _MARGIN if legend else 0)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text cut at its beginning, where ids are alike, until it fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
