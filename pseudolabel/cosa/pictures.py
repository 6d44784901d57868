"""What co-training does to a few images of a batch, as one picture for people. Plain NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pseudolabel.data.palette import PALETTE
from pseudolabel.data.records import IGNORE
from pseudolabel.export.pictures import legend_entries, paint_heat, paint_labels, sheet

_TILE = 224  # long side of a picture, pixels


def training_grid(
    photographs: np.ndarray,
    cams: np.ndarray,
    cam_labels: np.ndarray,
    segmentation_labels: np.ndarray,
    prediction: np.ndarray,
    tags: np.ndarray,
    classes: Sequence[str],
    *,
    rows: int = 4,
) -> np.ndarray:
    """A row an image: photograph, teacher's CAM, labels from it and from its segmentation, student's prediction.

    Labels lie in their palette colours over the photograph, which background leaves as it is; the names of the colours
    are below. Maps may be coarser than the photographs.

    Args:
        photographs: uint8 (B, H, W, 3), RGB, the weak views.
        cams: float (B, C, h, w) in [0, 1], the guided CAMs; the strongest class is shown.
        cam_labels: uint8 (B, H, W), 255 = unsure or padding.
        segmentation_labels: integer (B, h, w), the teacher's most probable class.
        prediction: integer (B, h, w), the student's, of every class.
        tags: (B, C), positive where a class occurs.
        classes: Names by class index, background first.
        rows: At most so many images.

    Returns:
        uint8 (H', W', 3).
    """
    height, width = photographs.shape[1:3]
    factor = _TILE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))

    def resized(array: np.ndarray, how: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize(size, how))

    pictures, present = [], np.zeros(256, dtype=bool)
    for index in range(min(rows, len(photographs))):
        photograph = resized(photographs[index], Image.Resampling.LANCZOS)
        names = ", ".join(classes[label + 1] for label in np.flatnonzero(tags[index] > 0).tolist()) or "no class"
        heat = resized(cams[index].max(axis=0).astype(np.float32), Image.Resampling.BILINEAR)
        pictures += [(names, photograph), ("teacher's CAM", paint_heat(photograph, heat))]
        sure = (cam_labels[index] != IGNORE).mean()
        for title, labels in (
            (f"labels from CAM ({100 * sure:.0f} % sure)", cam_labels[index]),
            ("labels from segmentation", segmentation_labels[index]),
            ("student's prediction", prediction[index]),
        ):
            small = resized(labels.astype(np.uint8), Image.Resampling.NEAREST)
            present[np.unique(small)] = True
            pictures.append((title, _hatched(photograph, small)))
    tiles = [(title, Image.fromarray(array)) for title, array in pictures]
    page = sheet(tiles, 5, (_TILE, _TILE), legend_entries(np.flatnonzero(present), classes))
    return np.asarray(page)


def _hatched(photograph: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels over a photograph, with stripes where there is none: plain cream is lost on a pale photograph."""
    painted = paint_labels(photograph, np.where(labels == IGNORE, 0, labels))
    rows, columns = np.indices(labels.shape)
    painted[(labels == IGNORE) & ((rows + columns) % 8 < 3)] = PALETTE[IGNORE]
    return painted
