"""Counting the pixels of label maps by true label, predicted label and boundary bands.

Notation: K classes, background first. A *table* (K + 1, K + 1, 4) holds every pixel of one or more images once: row =
true label, column = predicted label, with index K for 255, and last the pixel's boundary bands (``boundary.TRUTH`` |
``boundary.PREDICTION``). Every score follows from sums over parts of a table.

What counts: pixels whose true label is 255 never do. What a predicted 255 counts as is a policy:

* ``background``: label 0 (IRN's evaluation);
* ``drop``: the pixel does not count at all, as if its true label were 255 (ToCo's and CoSA's);
* ``miss``: a miss of the true class, and no false alarm of any (SEAM's and MCTformer's).
"""

from __future__ import annotations

import numpy as np

from pseudolabel.metrics.boundary import PREDICTION, TRUTH, Buffers, boundary_bands, boundary_distance, differences
from pseudolabel.options import IgnoredPolicy

IGNORE = 255
_NO_CLASS = 1 << 20  # the index of what is neither a class nor 255: far outside every table


class LabelRangeError(ValueError):
    """A label map holds a value that is neither a class nor 255."""


class PixelCounter:
    """Counts the pixels of one image after the other.

    Args:
        classes: K.
        boundary: Distance of the boundary bands as a share of the image's diagonal; None: no bands.
        ignored: What a predicted 255 counts as. It matters to the bands only, for tables keep 255 apart.
    """

    def __init__(self, classes: int, *, boundary: float | None, ignored: IgnoredPolicy) -> None:
        self.classes = classes
        self.boundary = boundary
        index = np.full(256, _NO_CLASS, dtype=np.uint32)
        index[:classes] = np.arange(classes)
        index[IGNORE] = classes
        self._row, self._column = index * np.uint32(4 * (classes + 1)), index * np.uint32(4)
        self.ignored: IgnoredPolicy = ignored
        self._buffers = Buffers()

    def table(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Count one image. Label maps are runs of one value, so it is runs that are counted.

        Bands are those of the maps as they count: a predicted 255 follows the policy, and where the true label is 255
        so is the prediction. Thus a prediction that is right wherever it counts has the same bands as the truth.

        Args:
            truth: uint8 (H, W), 255 = ignore.
            prediction: uint8 (H, W), 255 = unlabelled.

        Returns:
            float64 (K + 1, K + 1, 4), whole numbers.

        Raises:
            LabelRangeError: A value is out of range.
        """
        side = self.classes + 1
        size = truth.size
        if not size:
            return np.zeros((side, side, 4))
        position, band = self._runs(truth, prediction)
        labels = truth.ravel()[position], prediction.ravel()[position]
        code = self._row[labels[0]] + self._column[labels[1]]
        if band is not None:
            code += band[position]
        if code.max() >= 4 * side * side:
            wrong = min(label for array in labels for label in array.tolist() if self.classes <= label < IGNORE)
            raise LabelRangeError(f"label {wrong}, wanted 0 to {self.classes - 1} or {IGNORE}")
        length = np.empty(len(position))
        np.subtract(position[1:], position[:-1], out=length[:-1])
        length[-1] = size - position[-1]
        return np.bincount(code, length, minlength=4 * side * side).reshape(side, side, 4)

    def _runs(self, truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Where, in the flat maps, runs of equal labels and bands start; and the bands."""
        size = truth.size
        flat = truth.ravel(), prediction.ravel()
        highest = int(flat[1].max())
        counted = self._as_counted(*flat, self.ignored if highest == IGNORE else None)
        across = differences(*counted, 1, self._buffers.take("across", size - 1), self._buffers)
        starts = self._buffers.take("starts", size + -size % 8)
        starts[0], starts[size:] = 1, 0
        others = starts[1:size]
        band = None
        if self.boundary is None:
            others[...] = across
        else:
            height, width = truth.shape
            distance = boundary_distance(height, width, self.boundary)
            band = boundary_bands(across, *counted, (height, width), distance, self._buffers)
            np.bitwise_xor(band[1:], band[:-1], out=others)
            np.bitwise_or(others, across, out=others)
        if highest >= self.classes:  # no value may hide in a run of values that count the same
            for array in flat:
                others |= array[1:] ^ array[:-1]
        return _nonzero(starts), band

    def _as_counted(
        self, truth: np.ndarray, prediction: np.ndarray, ignored: IgnoredPolicy | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both flat maps as they count; ``ignored`` is None where no 255 is predicted."""
        if ignored == "background":
            prediction = np.where(prediction == IGNORE, np.uint8(0), prediction)
        elif ignored == "drop":
            truth = np.where(prediction == IGNORE, np.uint8(IGNORE), truth)
        counted = self._buffers.take("counted", len(truth))
        np.equal(truth, IGNORE, out=counted.view(bool))
        np.negative(counted, out=counted)  # 1 becomes 255
        counted |= prediction
        return truth, counted


def _nonzero(flags: np.ndarray) -> np.ndarray:
    """``np.flatnonzero`` of bytes that are mostly 0, a multiple of 8 of them, in half its time: first eight at once."""
    words = flags.view(np.uint64)
    busy = np.flatnonzero(words != 0)
    inside = np.flatnonzero(words[busy].view(np.uint8) != 0)
    return np.asarray(busy[inside >> 3] * 8 + (inside & 7))


def class_counts(table: np.ndarray, ignored: IgnoredPolicy) -> np.ndarray:
    """Hits, true pixels and predicted pixels of each class.

    Args:
        table: (..., K + 1, K + 1, 4).
        ignored: What a predicted 255 counts as.

    Returns:
        float64 (..., K, 3): pixels of the class that got it, pixels of the class, pixels that got the class.
    """
    return _margins(_settled(table.sum(axis=-1), ignored))


def boundary_counts(table: np.ndarray, ignored: IgnoredPolicy) -> np.ndarray:
    """``class_counts`` of the pixels in the boundary bands: hits are in both, the others in the band of their map."""
    both = TRUTH | PREDICTION
    of_truth = _settled(table[..., TRUTH] + table[..., both], ignored)
    of_prediction = _settled(table[..., PREDICTION] + table[..., both], ignored)
    hits = _margins(_settled(table[..., both], ignored))[..., 0]
    return np.stack([hits, _margins(of_truth)[..., 1], _margins(of_prediction)[..., 2]], axis=-1)


def _settled(pixels: np.ndarray, ignored: IgnoredPolicy) -> np.ndarray:
    """Pixels (..., K + 1, K + 1) without the true 255, and with the predicted 255 as they count: (..., K, K + 1)."""
    pixels = pixels[..., :-1, :].astype(np.float64)
    if ignored == "background":
        pixels[..., 0] += pixels[..., -1]
    if ignored != "miss":
        pixels[..., -1] = 0
    return pixels


def _margins(pixels: np.ndarray) -> np.ndarray:
    """Class counts (..., K, 3) of settled pixels (..., K, K + 1)."""
    square = pixels[..., :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    return np.stack([hits, pixels.sum(axis=-1), square.sum(axis=-2)], axis=-1)
