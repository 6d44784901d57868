"""Ground-truth masks that lie one a file, as indexed PNGs."""

from __future__ import annotations

import numpy as np

from pseudolabel.data.dataset import Record
from pseudolabel.data.images import read_label_png
from pseudolabel.errors import DatasetError


def read_mask_file(record: Record, classes: int) -> np.ndarray:
    """Ground truth of one image.

    Args:
        record: The image.
        classes: How many object classes the data set has.

    Returns:
        uint8 (H, W): 0 background, 1 to ``classes``, 255 ignore.

    Raises:
        DatasetError: The image has no mask, or the mask is unreadable or holds another value.
    """
    if record.mask is None:
        raise DatasetError(f"{record.image} has no ground-truth mask; evaluation and tags from masks need one")
    mask = read_label_png(record.mask)
    if int((mask + np.uint8(1)).max()) > classes + 1:  # 255 wraps to 0, which leaves one pass over the pixels
        wrong = np.unique(mask[(mask > classes) & (mask != 255)])
        raise DatasetError(f"{record.mask} holds label {wrong[0]}; wanted 0 to {classes}, or 255 for ignore")
    return mask
