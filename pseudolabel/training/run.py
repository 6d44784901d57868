"""One training as plain data, and the interface of what it descends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pseudolabel.artefacts import Header
from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.options import TrainingOptions
from pseudolabel.runtime.devices import pins_memory
from pseudolabel.training.ema import update_ema
from pseudolabel.training.group import Group
from pseudolabel.training.samples import Samples, steps_per_epoch, total_steps

Batch = Mapping[str, Any]
Losses = dict[str, Tensor]
Arrays = dict[str, np.ndarray]


class Step(NamedTuple):
    """The optimiser step that is being taken.

    Attributes:
        number: Steps taken before.
        images: Of the whole batch, over all processes.
        drawn: Whether it is to be drawn.
    """

    number: int
    images: int
    drawn: bool = False


class Objective(Protocol):
    """What a training descends, and what it keeps beside its network."""

    def losses(self, network: Any, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """The losses of one step, part by part.

        Args:
            network: What is trained.
            batches: This process's micro batches of the step, on the device.
            step: Which step it is.

        Yields:
            For every micro batch, named scalars that sum to the whole batch's over parts and processes; ``loss`` is the
            one that is descended.
        """
        ...

    def after_step(self, network: Any, step: int) -> dict[str, float]:
        """Called after ``step`` optimiser steps; its numbers join the curves."""
        ...

    def pictures(self) -> dict[str, np.ndarray]:
        """What the last step looked like, by name: uint8 (H, W, 3), RGB; empty where nothing was to be drawn."""
        ...

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Counts int64 (bins,) and edges float64 (bins + 1,) that tell where a method stands, by name."""
        ...

    def evaluated(self, network: Any) -> AbstractContextManager[Any]:
        """The network as it is validated and kept, in evaluation mode."""
        ...

    def checkpoint(self, network: Any) -> Arrays:
        """All arrays of the checkpoint but the curves, the network's as ``weights/NAME``."""
        ...

    def state(self) -> Arrays:
        """What a resumed training needs beside the network and the optimiser."""
        ...

    def restore(self, network: Any, state: Arrays) -> None:
        """Go on from what ``state`` gave, with a network that is restored already."""
        ...


class Mean:
    """A loss that is a mean over images; what is kept is the network, or an exponential average of it.

    Args:
        loss: Network and micro batch to named losses, each a mean over the micro batch's images.
        average: Decay of the exponential average; None for none.
    """

    def __init__(self, loss: Callable[[Any, Batch], Losses], average: float | None = None) -> None:
        self._loss, self._decay = loss, average
        self._average: dict[str, Tensor] = {}

    def losses(self, network: Any, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """See ``Objective``."""
        if self._decay is not None and not self._average:
            self._average = _copy(network)
        for batch in batches:
            share = len(batch["id"]) / step.images
            yield {name: value * share for name, value in self._loss(network, batch).items()}

    def after_step(self, network: Any, step: int) -> dict[str, float]:
        """See ``Objective``."""
        if self._decay is not None:
            update_ema(self._average, network, self._decay, step)
        return {}

    def pictures(self) -> dict[str, np.ndarray]:
        """See ``Objective``."""
        return {}

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See ``Objective``."""
        return {}

    @contextmanager
    def evaluated(self, network: nn.Module) -> Iterator[nn.Module]:
        """See ``Objective``."""
        network.eval()
        if not self._average:
            yield network
            return
        own = _copy(network)
        network.load_state_dict(self._average)
        yield network
        network.load_state_dict(own)

    def checkpoint(self, network: Any) -> Arrays:
        """See ``Objective``."""
        return weight_arrays(self._average or network.state_dict())

    def state(self) -> Arrays:
        """See ``Objective``."""
        return weight_arrays(self._average, "average")

    def restore(self, network: Any, state: Arrays) -> None:
        """See ``Objective``."""
        if self._decay is None or not state:  # an average that nothing moves any more is not to be kept
            return
        like = network.state_dict()
        self._average = {name: torch.from_numpy(state[f"average/{name}"]).to(like[name]) for name in like}


@dataclass
class Best:
    """The state of a training at its best validation.

    Attributes:
        value: Of the number that is maximised; -inf before the first validation.
        step: When that was.
        arrays: Of the checkpoint then.
        measured: All numbers of that validation.
    """

    value: float = -math.inf
    step: int = 0
    arrays: Arrays = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """One training: what it trains on and where it stands.

    Attributes:
        network: The network, on its device.
        samples: Yields dictionaries of arrays and an ``id``.
        objective: What is descended.
        options: The stage's settings, as far as trainings share them; the state to resume from lies beside ``out``.
        header: Of the checkpoint to be made.
        device: Where to compute.
        dtype: Number format of the forward pass.
        channels_last: Whether images and weights are in that memory order.
        validate: Called with the evaluated network after every epoch; its numbers join the curves.
        choose: Which of these numbers the kept state is best in; None keeps the last state.
        group: The processes that train together.
        picture_every: Steps between two pictures; None for none.
        more: Further datasets of the checkpoint, which the training does not change.
        measured: Numbers of the last validation.
    """

    network: nn.Module
    samples: Samples
    objective: Objective
    options: TrainingOptions
    header: Header
    device: torch.device
    dtype: torch.dtype
    channels_last: bool = False
    validate: Callable[[Any], dict[str, float]] | None = None
    choose: str | None = None
    group: Group = field(default_factory=Group)
    picture_every: int | None = None
    more: Arrays = field(default_factory=dict)
    step: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)
    best: Best = field(default_factory=Best)
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass; an incomplete last batch is left out."""
        return steps_per_epoch(self.samples, self.options)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return total_steps(self.samples, self.options)

    @property
    def kept_step(self) -> int:
        """Steps behind the state that is kept."""
        return self.best.step if self.choose else self.step

    @property
    def kept_measured(self) -> dict[str, float]:
        """What validation has found of the state that is kept, by name."""
        return self.best.measured if self.choose else self.measured

    @property
    def images_per_step(self) -> int:
        """Of the whole batch, over all processes."""
        return min(self.options.batch_size, len(self.samples))

    def moved(self, batches: Sequence[Batch]) -> list[Batch]:
        """Micro batches on the device."""
        early = pins_memory(self.device)
        return [
            {k: v.to(self.device, non_blocking=early) if isinstance(v, Tensor) else v for k, v in batch.items()}
            for batch in batches
        ]


def state_path(out: Path) -> Path:
    """Where a training keeps the state it can resume from, until its checkpoint is written."""
    return out.with_name(out.name + ".training")


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
