"""Mean-field inference in a fully connected conditional random field (Krähenbühl & Koltun 2011), for any kernels.

Q <- softmax(-U + sum over kernels of w norm(A) Q), norm(A) = D^-1/2 A D^-1/2 with D the row sums of A, as pydensecrf
normalises. What the classes send each other (``messages``) is linear in Q, which saves two things:

* The maps of Q sum to 1, so one class's messages are the sum of all, known beforehand, less the others'.
* A class whose Q is below ``NEGLIGIBLE`` at every pixel sends less than that times the kernels' weights: it is left out
  until it rises again. With 21 classes of which three are in the picture, most of the work goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pseudolabel.pairwise.jit import compiled

NEGLIGIBLE = 1e-5
"""Probability up to which a class that has no more anywhere sends no messages."""

SETTLED = 1e-2
"""Change of every probability in one step below which, where no label has changed either, none is expected to."""

_BLOCK = 1024  # pixels that are updated together: a page of each map, which suits the processor's reading ahead

_NONE = -1  # no class spared

Filter = Callable[[np.ndarray, np.ndarray], object]
"""Adds w norm(A) times each map, w the kernel's weight, to the maps of a second array: both float32 (P, N)."""


def mean_field(
    unary: np.ndarray,
    filters: Sequence[Filter],
    iterations: int,
    *,
    members: np.ndarray | None = None,
    compatibility: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Iterate until a step changes no label and no probability by ``SETTLED``, at most ``iterations`` times.

    That no label changes is not enough: where all classes but one slowly lose, labels change many steps later.

    Args:
        unary: float32 (K, N), energies, K in 1-256.
        filters: The kernels.
        iterations: The most steps, >= 0.
        members: float32 (K,), how many classes of equal unaries each row stands for; None is all ones. Such classes
            stay equal, so that one row gives all of them. Not together with ``compatibility``.
        compatibility: float32 (K, K): what a message of the second class adds to the score of the first, so
            minus mu of Krähenbühl & Koltun. None is the Potts model, the unit matrix.

    Returns:
        Q, float32 (K, N), rows summed over their members, summing to 1 at each pixel; the number of steps taken.
    """
    if compatibility is not None and members is not None:
        raise ValueError("members need the Potts model; leave out compatibility")
    count, points = unary.shape
    members = np.ones(count, np.float32) if members is None else members
    total = _add_all(filters, np.ones((1, points), np.float32), np.zeros((1, points), np.float32))[0]
    q, messages = np.zeros_like(unary), np.zeros_like(unary)
    labels, peaks = np.zeros(points, np.uint8), np.empty(count, np.float32)
    _update(messages, _NONE, total, unary, members, q, labels, peaks)
    for step in range(1, iterations + 1):
        spared = _send(filters, q, peaks, messages)
        if compatibility is not None:
            messages[spared] = total - messages.sum(axis=0)
            messages[:], spared = compatibility @ messages, _NONE
        changed, moved = _update(messages, spared, total, unary, members, q, labels, peaks)
        if changed == 0 and moved < SETTLED:
            return q, step
    return q, iterations


def _add_all(filters: Sequence[Filter], maps: np.ndarray, out: np.ndarray) -> np.ndarray:
    for add in filters:
        add(maps, out)
    return out


def _send(filters: Sequence[Filter], q: np.ndarray, peaks: np.ndarray, messages: np.ndarray) -> int:
    """Add each row's messages to zeros, float32 (K, N), but for one: the row whose number is returned."""
    spared, *sending = np.flatnonzero(peaks > NEGLIGIBLE)
    if sending:
        first, end = sending[0], sending[-1] + 1
        if end - first == len(sending):  # then no copy is needed
            _add_all(filters, q[first:end], messages[first:end])
        else:
            maps = q[sending]
            messages[sending] = _add_all(filters, maps, np.zeros_like(maps))
    return int(spared)


@compiled
def _update(messages: Any, spared: Any, total: Any, unary: Any, members: Any, q: Any, labels: Any, peaks: Any) -> Any:
    """Q <- softmax(messages - unary), messages <- 0; the labels, each map's maximum; changed labels, largest change."""
    count, points = unary.shape
    changed, moved = 0, np.int32(0)
    peaks[:] = 0
    shares, priors = np.float32(1) / members, np.log(members)
    scores, rest = np.empty((count, _BLOCK), np.float32), np.empty(_BLOCK, np.float32)
    highest, best = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint8)
    for start in range(0, points, _BLOCK):
        size = min(_BLOCK, points - start)
        for i in range(size):
            rest[i], highest[i], best[i] = total[start + i], -np.inf, np.uint8(0)
        for k in range(count):
            if k != spared:
                row, energy, to = messages[k, start : start + size], unary[k, start : start + size], scores[k]
                for i in range(size):
                    to[i] = row[i] * shares[k] - energy[i]
                    rest[i] -= row[i]
                    row[i] = 0
        if spared != _NONE:
            energy, to = unary[spared, start : start + size], scores[spared]
            for i in range(size):
                to[i] = rest[i] * shares[spared] - energy[i]
        for k in range(count):
            row, label = scores[k], np.uint8(k)
            for i in range(size):
                best[i] = label if row[i] > highest[i] else best[i]
                highest[i] = max(highest[i], row[i])
        moved = max(moved, _softmax(scores, highest, priors, start, size, rest, q, peaks))
        now = labels[start : start + size]
        for i in range(size):
            changed += now[i] != best[i]
            now[i] = best[i]
    return changed, np.int32(moved).view(np.float32)


@compiled
def _softmax(scores: Any, highest: Any, priors: Any, start: Any, size: Any, factor: Any, q: Any, peaks: Any) -> Any:
    """Q of a block, and each map's maximum, if larger than before; the bits of the largest change."""
    factor[:] = 0
    for k in range(scores.shape[0]):
        row = scores[k]
        for i in range(size):
            row[i] = _exponential(row[i] - highest[i] + priors[k])
            factor[i] += row[i]
    for i in range(size):
        factor[i] = np.float32(1) / factor[i]
    # Floats that are not negative are ordered as their bits; a maximum of integers is taken many at a time.
    moved, bits = np.int32(0), peaks.view(np.int32)
    for k in range(scores.shape[0]):
        row, to, peak = scores[k], q[k, start : start + size], bits[k]
        for i in range(size):
            value = row[i] * factor[i]
            moved = max(moved, np.float32(abs(value - to[i])).view(np.int32))
            peak = max(peak, np.float32(value).view(np.int32))
            to[i] = value
        bits[k] = peak
    return moved


@compiled
def _exponential(x: Any) -> Any:
    """exp(x), to 4e-6 of itself for -87 <= x <= 80 and all but 0 below: 2^whole times a polynomial (Cephes).

    Written out because the compiler then takes it for many pixels at once, which it does not with a call.
    """
    x = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = np.rint(x)
    rest = x - whole
    value = np.float32(1.535336188319500e-4)
    value = value * rest + np.float32(1.339887440266574e-3)
    value = value * rest + np.float32(9.618437357674640e-3)
    value = value * rest + np.float32(5.550332471162809e-2)
    value = value * rest + np.float32(2.402264791363012e-1)
    value = value * rest + np.float32(6.931472028550421e-1)
    value = value * rest + np.float32(1)
    return value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
