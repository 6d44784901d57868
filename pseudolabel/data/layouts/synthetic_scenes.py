"""How one synthetic scene is drawn: a background, and one to three objects whose class shows on a part of them only.

Each class has a shape and a texture of its own, but the texture covers only about two fifths of an object. The rest is
plain, in any of the same few colours. A classifier therefore finds the textured part first, and its activation maps
cover objects only partly, as they do on photographs. The colour of an object differs from what is behind it, so that a
dense CRF can find its outline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from pseudolabel.data.shapes import Box

_FINE = 4  # samples a pixel and axis, from which outlines are made smooth
_PAINTS = np.array([[205, 62, 52], [226, 150, 40], [150, 84, 190], [70, 110, 205], [222, 196, 70], [200, 90, 140]])
_GROUNDS = {
    "meadow": ((96, 140, 70), (62, 104, 52)),
    "sand": ((214, 196, 158), (178, 154, 114)),
    "street": ((150, 150, 154), (98, 98, 106)),
    "sky": ((170, 202, 226), (112, 152, 190)),
    "water": ((70, 140, 156), (36, 92, 116)),
}


def draw_scene(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Box]]:
    """Draw a photograph and its label map.

    Nine of ten images with a fish lie on water, and nine of ten on water show a fish, so that a classifier may take the
    water for the fish: the coexistence problem.

    Args:
        height: Pixels.
        width: Pixels.
        rng: The only source of randomness.

    Returns:
        uint8 (H, W, 3); uint8 (H, W) of class indices, in which pixels that an outline cuts are 255; and the objects.
    """
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    labels = [int(label) for label in rng.integers(1, len(CLASSES), count)]
    likes_water = CLASSES.index("fish") in labels
    dry = [name for name in _GROUNDS if name != "water"]
    ground = "water" if rng.random() < (0.9 if likes_water else 0.03) else dry[int(rng.integers(len(dry)))]
    picture = _ground(ground, height, width, rng)
    mask = np.zeros((height, width), dtype=np.uint8)
    boxes = [box for label in labels if (box := _place(picture, mask, label, rng))]
    light = 1 + 0.18 * _smooth(height, width, 2, rng)
    noise = rng.normal(0, 4, (height, width, 1)) + rng.normal(0, 2, (height, width, 3))
    return np.clip(picture * light[..., None] + noise, 0, 255).astype(np.uint8), mask, boxes


def _place(picture: np.ndarray, mask: np.ndarray, label: int, rng: np.random.Generator) -> Box | None:
    """Draw one object where it hides little of the others; leave it out where there is no room."""
    height, width = mask.shape
    kind = _KINDS[CLASSES[label]]
    for _ in range(30):
        radius = min(height, width) * rng.uniform(0.21, 0.37)
        centre = (rng.uniform(0.75, width / radius - 0.75) * radius, rng.uniform(0.75, height / radius - 0.75) * radius)
        tilt = rng.uniform(-kind.tilt, kind.tilt)
        cover, u, v = _cover(kind.outline, centre, radius, tilt, height, width)
        inside = cover > 0
        if (mask[inside] != 0).sum() <= 0.04 * inside.sum():
            break
    else:
        return None
    behind = picture[inside].mean(axis=0)
    paints = _PAINTS[np.abs(_PAINTS - behind).sum(axis=1) > 120]
    paint = paints[int(rng.integers(len(paints)))] * rng.uniform(0.85, 1.1) + rng.normal(0, 8, 3)
    shade = 1 + 0.10 * (-u - v) / math.sqrt(2)  # light from the upper left of the object
    shade = shade * np.where(kind.part(u, v), np.where(kind.texture(u, v), 0.62, 1.15), 1.0)
    colour = np.clip(paint * shade[..., None], 0, 255)
    picture[:] = picture * (1 - cover[..., None]) + colour * cover[..., None]
    mask[cover >= 0.75] = label
    mask[(cover > 0.25) & (cover < 0.75)] = 255
    rows, columns = (cover >= 0.75).nonzero()
    return Box(label, int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def _cover(
    outline: np.ndarray, centre: tuple[float, float], radius: float, tilt: float, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of each pixel that a tilted outline covers, and the pixels' u and v in its frame: float64 (H, W)."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    points = outline @ np.array([[cos, sin], [-sin, cos]]) * radius + centre
    fine = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(fine).polygon([tuple(point) for point in points * _FINE], fill=255)
    cover = np.asarray(fine.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255
    y, x = np.mgrid[:height, :width] + 0.5
    dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
    return cover, dx * cos + dy * sin, dy * cos - dx * sin


def _ground(name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A background, float64 (H, W, 3): two colours mixed by smooth noise of several sizes, darker at the bottom."""
    first, second = (np.array(colour, dtype=np.float64) + rng.normal(0, 6, 3) for colour in _GROUNDS[name])
    mix = 0.5 + 0.25 * _smooth(height, width, 3, rng) + 0.15 * _smooth(height, width, 12, rng)
    mix = mix + np.linspace(-0.25, 0.25, height)[:, None]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    if name == "water":
        wave = rng.uniform(9, 13)
        mix = mix + 0.3 * np.sin(
            2 * math.pi * (y / wave + 0.35 * np.sin(2 * math.pi * x / (4 * wave) + rng.uniform(0, 6)))
        )
    elif name == "meadow":
        mix = mix + 0.35 * _smooth(height, width, 48, rng)
    elif name == "street":
        mix = mix + 0.20 * _smooth(height, width, 64, rng)
    mix = np.clip(mix, 0, 1)[..., None]
    return np.asarray(first * (1 - mix) + second * mix)


def _smooth(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W), about -1 to 1, with ``cells`` bumps along the long side."""
    scale = cells / max(height, width)
    rows, columns = max(2, math.ceil(height * scale)), max(2, math.ceil(width * scale))
    coarse = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def _regular(corners: int, inner: float = 1.0) -> np.ndarray:
    """Points (x, y) of a regular polygon in the unit circle, first corner up; ``inner`` pulls every second one in."""
    angle = 2 * math.pi * np.arange(corners) / corners - math.pi / 2
    length = np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]


def _fish() -> np.ndarray:
    body = _regular(40) * (0.78, 0.48) - (0.22, 0)
    body = np.roll(body, -11, axis=0)  # begin and end at the right, where the tail grows
    tail = np.array([[0.5, 0.12], [1.0, 0.42], [0.88, 0.0], [1.0, -0.42], [0.5, -0.12]])
    keep = body[:, 0] < 0.5
    return np.concatenate([body[keep], tail[::-1]])


Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From coordinates u, v in the object's frame, about -1 to 1, v downwards, to booleans."""


class Kind(NamedTuple):
    """One class: its outline, how far it tilts in radians, its two-tone texture, and the part that bears it."""

    outline: np.ndarray
    tilt: float
    texture: Pattern
    part: Pattern


_KINDS = {
    "ball": Kind(
        _regular(48) * 0.85,
        math.pi,
        lambda u, v: np.hypot((u * 4) % 1 - 0.5, (v * 4) % 1 - 0.5) < 0.3,  # dots
        lambda u, v: np.abs(v) < 0.32,
    ),
    "house": Kind(
        np.array([[-0.75, 0.8], [-0.75, -0.15], [0.0, -0.9], [0.75, -0.15], [0.75, 0.8]]),
        0.2,
        lambda u, v: ((v * 5) % 1 < 0.22) | ((u * 2.5 + np.floor(v * 5) / 2) % 1 < 0.12),  # bricks
        lambda u, v: v > 0.12,
    ),
    "kite": Kind(
        np.array([[0.0, -1.05], [0.62, -0.2], [0.0, 1.05], [-0.62, -0.2]]),
        0.8,
        lambda u, v: (u * 4) % 1 < 0.5,  # stripes
        lambda u, v: v < -0.1,
    ),
    "star": Kind(
        _regular(10, 0.45) * 1.05,
        0.6,
        lambda u, v: (np.floor(u * 5) + np.floor(v * 5)) % 2 == 0,  # checks
        lambda u, v: np.hypot(u, v) < 0.45,
    ),
    "fish": Kind(
        _fish(),
        0.4,
        lambda u, v: np.hypot((u * 4) % 1 - 0.5, (v * 4 + 0.5 * np.floor(u * 4)) % 1 - 0.5) % 0.3 < 0.12,  # scales
        lambda u, v: u < -0.3,
    ),
}
CLASSES = ("background", *_KINDS)
"""Names in index order."""
