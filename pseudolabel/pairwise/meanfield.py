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

_BLOCK = 256  # pixels that are updated together: small enough for the first-level cache with 21 classes

Filter = Callable[[np.ndarray], np.ndarray]


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
        filters: Each takes float32 (P, N) to w norm(A) times each map, float32 (P, N), w the kernel's weight.
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
    prior = np.log(members).astype(np.float32)
    total = _messages(filters, np.ones((1, points), np.float32))[0]
    q, messages = np.zeros_like(unary), np.zeros_like(unary)
    labels, peaks = np.zeros(points, np.uint8), np.empty(count, np.float32)
    _update(messages, unary, prior, q, labels, peaks)
    for step in range(1, iterations + 1):
        _send(filters, q, peaks, total, messages)
        if members.max() > 1:
            messages /= members[:, None]
        sent = messages if compatibility is None else compatibility @ messages
        changed, moved = _update(sent, unary, prior, q, labels, peaks)
        if changed == 0 and moved < SETTLED:
            return q, step
    return q, iterations


def _messages(filters: Sequence[Filter], maps: np.ndarray) -> np.ndarray:
    result = filters[0](maps)
    for filtered in filters[1:]:
        result += filtered(maps)
    return result


def _send(filters: Sequence[Filter], q: np.ndarray, peaks: np.ndarray, total: np.ndarray, messages: np.ndarray) -> None:
    """Fill in each row's messages: float32 (K, N)."""
    active = np.flatnonzero(peaks > NEGLIGIBLE)
    spared, sending = active[0], active[1:]
    messages[peaks <= NEGLIGIBLE] = 0
    messages[spared] = total
    if len(sending):
        together = sending[-1] - sending[0] == len(sending) - 1  # then no copy is needed
        maps = q[sending[0] : sending[-1] + 1] if together else q[sending]
        found = _messages(filters, maps)
        for label, message in zip(sending, found, strict=True):
            messages[label] = message
            messages[spared] -= message


@compiled
def _update(messages: Any, unary: Any, prior: Any, q: Any, labels: Any, peaks: Any) -> Any:
    """Q <- softmax(messages - unary + prior); the labels, each map's maximum; changed labels, largest change of Q."""
    count, points = unary.shape
    changed, moved = 0, np.int32(0)
    peaks[:] = 0
    highest_bits = peaks.view(np.int32)
    fresh = np.empty((count, _BLOCK), np.float32)
    highest, best = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint8)
    total = np.empty(_BLOCK, np.float32)
    for start in range(0, points, _BLOCK):
        size = min(_BLOCK, points - start)
        for i in range(size):
            highest[i], best[i], total[i] = -np.inf, np.uint8(0), 0
        for k in range(count):
            row, energy, scores = messages[k, start : start + size], unary[k, start : start + size], fresh[k]
            label = np.uint8(k)
            for i in range(size):
                score = row[i] - energy[i]
                scores[i] = score + prior[k]
                best[i] = label if score > highest[i] else best[i]
                highest[i] = max(highest[i], score)
        for k in range(count):
            scores = fresh[k]
            for i in range(size):
                scores[i] = _exponential(scores[i] - highest[i])
                total[i] += scores[i]
        for i in range(size):
            total[i] = np.float32(1) / total[i]
        for k in range(count):
            scores, to = fresh[k], q[k, start : start + size]
            # Floats that are not negative are ordered as their bits; a maximum of integers is taken many at a time.
            peak = highest_bits[k]
            for i in range(size):
                value = scores[i] * total[i]
                moved = max(moved, np.float32(abs(value - to[i])).view(np.int32))
                peak = max(peak, np.float32(value).view(np.int32))
                to[i] = value
            highest_bits[k] = peak
        now = labels[start : start + size]
        for i in range(size):
            changed += now[i] != best[i]
            now[i] = best[i]
    return changed, np.int32(moved).view(np.float32)


@compiled
def _exponential(x: Any) -> Any:
    """exp(x), to 4e-6 of itself for -87 <= x <= 80 and all but 0 below: 2^whole times a polynomial (Cephes).

    Written out because the compiler then takes it for many pixels at once, which it does not with a call.
    """
    x = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = np.floor(x + np.float32(0.5))
    rest = x - whole
    value = np.float32(1.535336188319500e-4)
    value = value * rest + np.float32(1.339887440266574e-3)
    value = value * rest + np.float32(9.618437357674640e-3)
    value = value * rest + np.float32(5.550332471162809e-2)
    value = value * rest + np.float32(2.402264791363012e-1)
    value = value * rest + np.float32(6.931472028550421e-1)
    value = value * rest + np.float32(1)
    return value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
