"""Learning from mixed weak labels as what a training descends: the order of a step, and the teacher if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.models.scribble import ScribbleNetwork
from pseudolabel.scribble.losses import ramp
from pseudolabel.scribble.pictures import training_grid
from pseudolabel.scribble.regularisers import Regulariser
from pseudolabel.scribble.step import Known, Method, losses, totals
from pseudolabel.training import Batch, Group, Losses, Step
from pseudolabel.training.averaged import Averaged


@dataclass(frozen=True)
class Phases:
    """When the regulariser begins.

    Attributes:
        start: Optimiser steps in which labels alone teach.
        length: Steps in which its weight then rises to its full value.
    """

    start: int
    length: int


class WeakLearning(Averaged):
    """The losses of mixed weak labels, step by step; an ``Objective`` of a training.

    A batch holds ``image`` uint8 (B, H, W, 3); of the same views ``labels`` uint8 (B, H, W), ``allowed`` bool
    (B, K, h, w) and ``present`` bool (B, C), as ``step.Known`` has them, perhaps ``objectness`` float32 (B, h, w); and
    ``noise`` float32 (B, h, w), drawn for each image.

    Args:
        network: On its device, as it is before the first step.
        method: What is switched on.
        regulariser: None where the method has none.
        phases: When it begins.
        decay: Of the teacher, an exponential average of the network, which is what is kept and whose predictions label
            cells for the feature consistency; None: there is no teacher.
        prepare: Views uint8 (B, H, W, 3) to the network's input float32 (B, 3, H, W).
        group: The processes that train together.
        classes: Names, background first.
    """

    def __init__(
        self,
        network: ScribbleNetwork,
        method: Method,
        regulariser: Regulariser | None,
        phases: Phases,
        *,
        decay: float | None,
        prepare: Callable[[Tensor], Tensor],
        group: Group,
        classes: Sequence[str],
    ) -> None:
        super().__init__(network, decay)
        self.method, self.regulariser, self.phases = method, regulariser, phases
        self._prepare, self._group = prepare, group
        self._classes = classes
        self._shown: tuple[Batch, Tensor] | None = None

    def strength(self, step: int) -> float:
        """The factor on the regulariser's weight after ``step`` steps."""
        return ramp(step, self.phases.start, self.phases.length)

    def losses(self, network: ScribbleNetwork, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """Each micro batch's share of the losses that the labels allow; see ``training.Objective``."""
        knowns = [
            Known(batch["labels"], batch["allowed"], batch["present"], batch.get("objectness")) for batch in batches
        ]
        total = self._group.total(torch.stack([totals(known) for known in knowns]).sum(dim=0))
        for batch, known in zip(batches, knowns, strict=True):
            yield self._losses_of_part(network, batch, known, total, step)

    def _losses_of_part(
        self, network: ScribbleNetwork, batch: Batch, known: Known, total: Tensor, step: Step
    ) -> Losses:
        inputs = self._prepare(batch["image"])
        output, strength = network.outputs(inputs), self.strength(step.number)
        found = losses(
            output,
            known,
            self.method,
            total=total,
            photographs=batch["image"].permute(0, 3, 1, 2),
            noise=batch["noise"],
            regulariser=self.regulariser,
            strength=strength,
            guide=self._guide(inputs) if strength > 0 else None,
        )
        if strength == 0:
            found.pop("regulariser", None)  # it was not computed: the curve has no value there
        if step.drawn and self._shown is None:
            self._shown = (batch, output.segmentation.detach())
        labelled = (known.labels != IGNORE).float().mean(dim=(1, 2)).sum() / step.images
        return {**found, "labelled": labelled}

    @torch.no_grad()
    def _guide(self, inputs: Tensor) -> Tensor | None:
        """The teacher's logits, where its predictions label cells."""
        asked = self.method.consistency is not None and self.method.confidence is not None
        return self.teacher.segment(inputs) if self.teacher is not None and asked else None

    def after_step(self, network: ScribbleNetwork, step: int) -> dict[str, float]:
        """Let the teacher follow; the strength that the step used joins the curves."""
        used = {} if self.regulariser is None else {"strength": self.strength(step - 1)}
        self.follow(network, step)
        return used

    def pictures(self) -> dict[str, np.ndarray]:
        """The first micro batch of the last step, if it was to be drawn."""
        if self._shown is None:
            return {}
        (batch, logits), self._shown = self._shown, None
        grid = training_grid(
            batch["image"].cpu().numpy(),
            batch["labels"].cpu().numpy(),
            logits.argmax(dim=1).cpu().numpy(),
            batch["id"],
            self._classes,
        )
        return {"batch": grid}
