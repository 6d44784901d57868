"""What the objectives share that keep the exponential moving average (EMA) of their network, if asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.training.ema import make_teacher, update_ema
from pseudolabel.training.run import Arrays


class Averaged:
    """A part of an ``Objective``: the teacher, an EMA of the network, which is what is validated and kept.

    Args:
        network: On its device, as it is before the first step.
        decay: Of the EMA; None: there is no teacher, and the network itself is kept.

    Attributes:
        teacher: The EMA as a network of its own, in evaluation mode; None where there is none.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        self.teacher: Any = None if decay is None else make_teacher(network)
        self._decay = decay

    def follow(self, network: nn.Module, step: int) -> None:
        """Let the teacher follow after ``step`` optimiser steps."""
        if self.teacher is not None and self._decay is not None:
            update_ema(self.teacher.state_dict(), network, self._decay, step)

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Nothing here follows a distribution."""
        return {}

    @contextmanager
    def evaluated(self, network: Any) -> Iterator[Any]:
        """The teacher, or without one the network itself."""
        yield self.kept(network).eval()

    def checkpoint(self, network: Any) -> Arrays:
        """What is kept: the teacher's weights, or without one the network's own."""
        return weight_arrays(self.kept(network).state_dict())

    def kept(self, network: Any) -> Any:
        """The teacher, or without one the network itself, in whatever mode it is."""
        return network if self.teacher is None else self.teacher

    def state(self) -> Arrays:
        """What a resumed training needs beside the network."""
        return {} if self.teacher is None else weight_arrays(self.teacher.state_dict(), "teacher")

    def restore(self, network: Any, state: Arrays) -> None:
        """Go on from what ``state`` gave; a teacher that was not there before starts as the network."""
        if self.teacher is not None:
            weights = {name.removeprefix("teacher/"): torch.from_numpy(array) for name, array in state.items()}
            self.teacher.load_state_dict(weights or network.state_dict())
