"""Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): IoU of the pixels near the outlines of both masks.

A class's inner boundary band is its mask less the mask eroded by a square of 2 d + 1 pixels, where d is 2 % of the
image's diagonal and what lies outside the image counts as another class (the authors' ``mask_to_boundary``). So a pixel
is in the band of its own class exactly where the square around it leaves the image or holds a second label, and one
pass serves all classes: mark the places where four neighbours are not all equal, spread the marks over the square.

Deviation: the paper scores one object at a time. Here intersections and unions are summed over the images by class, as
those of mIoU are.

Label maps are flat here, bytes with a bit for either map: comparing and joining whole flat arrays, shifted against each
other, is what NumPy does fastest.
"""

from __future__ import annotations

import math

import numpy as np

TRUTH, PREDICTION = 1, 2
"""Bits that say in whose band a pixel is."""


class Buffers:
    """Arrays of bytes that serve one image after the other.

    A fresh array costs a page fault every 4096 bytes, which takes longer than what is done here with its content.
    """

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}

    def take(self, name: str, size: int) -> np.ndarray:
        """The array of this name: uint8 (size,), holding what was left in it."""
        array = self._memory.get(name)
        if array is None or len(array) < size:
            array = self._memory[name] = np.empty(size, dtype=np.uint8)
        return array[:size]


def boundary_distance(height: int, width: int, share: float) -> int:
    """The distance d in pixels: a share of the diagonal, rounded, at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def differences(truth: np.ndarray, prediction: np.ndarray, step: int, out: np.ndarray, buffers: Buffers) -> np.ndarray:
    """Where a pixel's label differs from the one ``step`` pixels on.

    Args:
        truth: uint8 (N,).
        prediction: uint8 (N,).
        step: 1 for the next pixel in the row, W for the one below. A row's end is compared with the next row's begin.
        out: uint8 (N - step,), for the result.
        buffers: Of which ``spare`` is used.

    Returns:
        ``out``: bits TRUTH and PREDICTION.
    """
    spare = buffers.take("spare", len(out))
    np.not_equal(prediction[:-step], prediction[step:], out=out.view(bool))
    np.add(out, out, out=out)
    np.not_equal(truth[:-step], truth[step:], out=spare.view(bool))
    out |= spare
    return out


def boundary_bands(
    across: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    shape: tuple[int, int],
    distance: int,
    buffers: Buffers,
) -> np.ndarray:
    """Find the pixels within the inner boundary band of their own class.

    Comparisons across row ends only reach the frame of d pixels, which is all band anyway.

    Args:
        across: ``differences`` with step 1.
        truth: uint8 (H * W,).
        prediction: uint8 (H * W,).
        shape: (H, W).
        distance: d, at least 1.
        buffers: Of which ``band``, ``corners`` and ``spare`` are used.

    Returns:
        uint8 (H * W,): bits TRUTH and PREDICTION.
    """
    height, width = shape
    band = buffers.take("band", height * width)
    if min(shape) <= 2 * distance:
        band[...] = TRUTH | PREDICTION
        return band
    down = buffers.take("corners", height * width - width)
    corners = differences(truth, prediction, width, down, buffers)[:-1]
    np.bitwise_or(corners, across[:-width], out=corners)
    np.bitwise_or(corners, across[width:], out=corners)
    rows, spare = _spread(corners, buffers.take("spare", len(corners)), 2 * distance, width)
    squares, _ = _spread(rows, spare, 2 * distance, 1)
    first = distance * (width + 1)
    band[first : first + len(squares)] = squares
    picture = band.reshape(shape)
    for frame in (picture[:distance], picture[-distance:], picture[:, :distance], picture[:, -distance:]):
        frame[...] = TRUTH | PREDICTION
    return band


def _spread(bits: np.ndarray, spare: np.ndarray, size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The bits of ``size`` elements, ``step`` apart, from each element on, joined; by doubling, in log2(size) passes.

    Args:
        bits: uint8 (N,); overwritten.
        spare: uint8 (N,); overwritten.
        size: At least 1.
        step: At least 1.

    Returns:
        uint8 (N - (size - 1) * step,) in one of the two arrays, and as much of the other.
    """
    done = 1
    while done < size:
        more = min(done, size - done)
        length = len(bits) - more * step
        joined = np.bitwise_or(bits[:length], bits[more * step :], out=spare[:length])
        bits, spare = joined, bits[:length]
        done += more
    return bits, spare
