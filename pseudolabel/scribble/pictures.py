"""What a network learns from and what it predicts, for a few images of a batch, as one picture. NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pseudolabel.data.palette import PALETTE
from pseudolabel.data.records import IGNORE
from pseudolabel.export.pictures import legend_entries, paint_labels, sheet

_TILE = 224  # long side of a picture, pixels


def training_grid(
    photographs: np.ndarray,
    labels: np.ndarray,
    prediction: np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    rows: int = 4,
) -> np.ndarray:
    """A row an image: photograph, what is labelled, prediction.

    Labelled pixels are opaque, background's black, so that thin strokes show; the rest is the photograph. Predictions
    lie over the photograph, which background leaves as it is. The names of the colours are below.

    Args:
        photographs: uint8 (B, H, W, 3), RGB.
        labels: uint8 (B, H, W), 255 = unlabelled.
        prediction: integer (B, h, w), the most probable class.
        names: Of the images.
        classes: Names by class index, background first.
        rows: At most so many images.

    Returns:
        uint8 (H', W', 3).
    """
    height, width = photographs.shape[1:3]
    factor = _TILE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    tiles, present = [], np.zeros(256, dtype=bool)
    for index in range(min(rows, len(photographs))):
        photograph = np.asarray(Image.fromarray(photographs[index]).resize(size, Image.Resampling.LANCZOS))
        given, found = (
            np.asarray(Image.fromarray(array[index].astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
            for array in (labels, prediction)
        )
        known = given != IGNORE
        drawn = photograph.copy()
        drawn[known] = PALETTE[given[known]]
        present[np.unique(given[known])] = present[np.unique(found)] = True
        share = f"labels ({100 * (labels[index] != IGNORE).mean():.1f} %)"
        pictures = ((names[index], photograph), (share, drawn), ("prediction", paint_labels(photograph, found)))
        tiles += [(title, Image.fromarray(array)) for title, array in pictures]
    return np.asarray(sheet(tiles, 3, (_TILE, _TILE), legend_entries(np.flatnonzero(present), classes)))
