"""How well a label map suits its photograph and its image tags, judged without any mask. [ours]

Two parts, both in [0, 1], because either alone misleads. Label boundaries suit the photograph best when a CRF gives up
all objects but the most striking one, and area is best kept by changing nothing:

* ``edges``: do colours differ more across label boundaries than within labels?
* ``areas``: does every class keep the area that it had before refinement?

The criterion of an image is their product, that of a set of images the mean of the products.
"""

from __future__ import annotations

import numpy as np

REACH = 4
"""Pixels between two that are compared: enough to see a blurred edge whole, few enough to see a thin object."""

_LEVELS = 3 * 255 + 1


def edge_agreement(image: np.ndarray, labels: np.ndarray) -> float:
    """The chance that two pixels of different labels differ more in colour than two of the same label.

    Pairs are REACH pixels apart in a row or a column; a colour difference is the sum of the channels' absolute ones.
    Being a comparison of ranks (the area under the ROC curve, ties counted half), it does not depend on how contrasty a
    photograph is.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W).

    Returns:
        A number in [0, 1]; 0.5 is chance, and what it is where all labels are the same or all pairs differ.
    """
    pixels = image.astype(np.int16)
    ahead = (slice(REACH, None), slice(None, -REACH))
    counts = np.zeros((2, _LEVELS))
    for one, other in (((slice(None), part) for part in ahead), ahead):
        contrast = np.abs(pixels[one] - pixels[other]).sum(axis=-1)
        apart = labels[one] != labels[other]
        for row, chosen in enumerate((~apart, apart)):
            counts[row] += np.bincount(contrast[chosen], minlength=_LEVELS)
    within, across = counts
    pairs = within.sum() * across.sum()
    if not pairs:
        return 0.5
    below = np.cumsum(within) - within / 2  # pairs of one label with less contrast, equal ones half
    return float(across @ below / pairs)


def area_agreement(start: np.ndarray, labels: np.ndarray) -> float:
    """How much of the classes' areas a refinement has left as it was.

    For each label of ``start``, background included, the smaller of its areas before and after over the larger one: 0
    for a class that was lost, 1 for one that kept its size, wherever it went. The worst one counts, for
    a small object that is eaten up would hardly show in a mean.

    Args:
        start: uint8 (H, W), the labels before refinement.
        labels: uint8 (H, W), the labels after it.

    Returns:
        A number in [0, 1].
    """
    before, after = (np.bincount(array.ravel(), minlength=256).astype(np.float64) for array in (start, labels))
    had = before > 0
    return float((np.minimum(before, after)[had] / np.maximum(before, after)[had]).min())
