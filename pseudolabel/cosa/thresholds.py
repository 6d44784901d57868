"""The dynamic threshold: a Gaussian mixture that follows the teacher's CAM scores over the last batches.

Paper (arXiv 2402.17891): the idea of a queue, a mixture and a moving average. The exact objective is ours, and
``pseudolabel.labels.mixture`` states it, as it does the rule of the released code. Three things keep a step cheap:
batches are kept as histograms, their sum is updated by what enters and leaves, and EM goes on from the last step's
mixture for a few iterations only, since the queue changes by a hundredth of itself. [ours] The released rule fits anew
at every step, and stops before it has converged. [code: three-components]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pseudolabel.labels.mixture import BINS, Cut, Histogram, Mixture, UnfitError, as_histogram, cut_by_three, cut_by_two
from pseudolabel.runtime.devices import wide_dtype
from pseudolabel.training.ema import warmed_decay

Rule = Literal["mixture", "released"]
_COMPONENTS = {"mixture": 2, "released": 3}
_ITERATIONS = 3  # of EM in a step
_LEAST_SHARE = 1e-3  # a component with less of the values has lost them


def count_scores(cams: Tensor, inside: Tensor | None = None, *, minimum: float = 0.05, bins: int = BINS) -> Tensor:
    """The histogram of nu = max_c M'_c, of the main head, over a batch's cells: what ``DynamicThreshold.update`` takes.

    The released code reduces maps at image size by 16, which is the grid of a ViT with patches of 16; here it is the
    network's own grid. Histograms of parts of a batch add up, on one device or over several processes.

    Args:
        cams: float (B, C, h, w) in [0, 1], of ``guided_cams``.
        inside: bool (B, h, w), False where a cell is padding; None: there is none.
        minimum: Values up to it are dropped.
        bins: Of equal width, from the minimum to 1.

    Returns:
        int64 (bins,), on the device of the maps.
    """
    score = cams.amax(dim=1)
    index = ((score.to(wide_dtype(score.device)) - minimum) * (bins / (1 - minimum))).long().clamp(max=bins - 1)
    counted = score > minimum if inside is None else (score > minimum) & inside
    index = torch.where(counted, index, bins)  # one more bin for what is dropped, so that shapes stay fixed
    return torch.bincount(index.flatten(), minlength=bins + 1)[:bins]


class DynamicThreshold:
    """The thresholds of the CAM labels, from the scores of the last batches. Plain NumPy; the same on every process.

    Rule ``mixture``: two components, ``low`` and ``high`` are both xi*, so that no pixel is unsure. Rule ``released``:
    three components, and the two thresholds between them.

    Where the mixture collapses, no fit is taken over: the thresholds stay, ``collapsed`` is set, and the next fit
    starts anew. It collapses where the queue is empty or lies in too few bins, where a component has lost its values,
    or where xi* has all values on one side.

    Args:
        rule: ``mixture`` or ``released``.
        low: Threshold until the first fit.
        high: Likewise, at least ``low``.
        length: Q, batches in the queue.
        decay: Of the exponential average, whose first update replaces ``low`` and ``high`` and whose decay then warms
            up as ``ema.warmed_decay`` says. [ours: the warm-up]
        minimum: What ``count_scores`` was given.
        bins: Likewise.

    Attributes:
        low: Below it a pixel is background.
        high: At or above it a pixel is foreground.
        collapsed: Whether the last update found nothing to separate.
        mixture: The last fit, or None.
    """

    def __init__(
        self,
        rule: Rule = "mixture",
        *,
        low: float = 0.5,
        high: float = 0.5,
        length: int = 100,
        decay: float = 0.99,
        minimum: float = 0.05,
        bins: int = BINS,
    ) -> None:
        self.rule, self.low, self.high = rule, low, high
        self.mixture: Mixture | None = None
        self.collapsed = False
        self._decay, self._minimum = decay, minimum
        self._queue = np.zeros((length, bins), dtype=np.int64)
        self._total = np.zeros(bins, dtype=np.int64)
        self._batches = 0
        self._fits = 0

    @property
    def value(self) -> float:
        """xi, the one threshold that perplexity is measured from: the middle of low and high, or both."""
        return (self.low + self.high) / 2

    @property
    def counts(self) -> np.ndarray:
        """int64 (bins,): the scores in the queue."""
        return self._total

    @property
    def edges(self) -> np.ndarray:
        """float64 (bins + 1,): of the bins that scores are counted in."""
        return as_histogram(self._total, self._minimum).edges

    def update(self, counts: Tensor | np.ndarray) -> None:
        """Let the oldest batch go, take a new one, and move the thresholds towards their new fit.

        Args:
            counts: int64 (bins,), a whole batch's ``count_scores``.
        """
        oldest = self._queue[self._batches % len(self._queue)]
        self._total -= oldest
        oldest[:] = counts.cpu().numpy() if isinstance(counts, Tensor) else counts
        self._total += oldest
        self._batches += 1
        histogram = as_histogram(self._total, self._minimum)
        try:
            cut = self._cut(histogram)
        except UnfitError:
            cut = None
        self.collapsed = cut is None or float(cut.mixture.weight.min()) < _LEAST_SHARE
        if cut is None or self.collapsed:
            self.mixture = None
            return
        self.mixture = cut.mixture
        low, high = (cut.value, cut.value) if self.rule == "mixture" else (cut.low, cut.high)
        decay = warmed_decay(self._decay, self._fits)
        self.low = decay * self.low + (1 - decay) * low
        self.high = decay * self.high + (1 - decay) * high
        self._fits += 1

    def _cut(self, histogram: Histogram) -> Cut:
        """Thresholds of the scores in the queue: the last fit goes on, or begins anew, as the rule has it."""
        if self.rule == "released":
            return cut_by_three(histogram)
        return cut_by_two(histogram, start=self.mixture, iterations=_ITERATIONS if self.mixture else None)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that changes, as arrays that a checkpoint can hold; the same updates follow after a restore."""
        mixture = self.mixture
        table = [] if mixture is None else [mixture.weight, mixture.mean, mixture.deviation]
        return {
            "queue": self._queue.copy(),
            "taken": np.array([self._batches, self._fits], dtype=np.int64),
            "thresholds": np.array([self.low, self.high]),
            "mixture": np.array(table, dtype=np.float64).reshape(len(table), -1 if table else 0),
            "collapsed": np.array(self.collapsed),
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what ``state_dict`` gave.

        Raises:
            ValueError: It is of a queue of another length or with other bins.
        """
        queue = np.asarray(state["queue"])
        if queue.shape != self._queue.shape:
            raise ValueError(f"the queue stored is {queue.shape} (batches, bins), wanted {self._queue.shape}")
        self._queue = queue.astype(np.int64)
        self._total = self._queue.sum(axis=0)
        self._batches, self._fits = (int(number) for number in state["taken"])
        self.low, self.high = (float(number) for number in state["thresholds"])
        table = np.array(state["mixture"])
        self.mixture = Mixture(*table) if table.shape[-1] == _COMPONENTS[self.rule] else None  # else of another rule
        self.collapsed = bool(state["collapsed"])
