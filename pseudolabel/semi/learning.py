"""Learning from few masks as what a training descends: the order of a step, and the teacher if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.models.segmenter import Segmenter
from pseudolabel.scribble.losses import ramp
from pseudolabel.scribble.step import Known
from pseudolabel.semi.pictures import Shown, pair_grid
from pseudolabel.semi.step import (
    Method,
    Totals,
    mask_loss,
    mean_teacher_loss,
    soft_targets,
    targets_of_views,
    totals,
    weak_losses,
)
from pseudolabel.training import Batch, Group, Losses, Step
from pseudolabel.training.averaged import Averaged


class SemiLearning(Averaged):
    """The losses of few masks and many photographs, step by step; an ``Objective`` of a training.

    A batch is of ``semi.training_data.PairedCrops``: ``image`` uint8 (B, H, W, 3) with ``labels`` uint8 (B, H, W); of
    as many images without masks ``weak`` and ``strong`` uint8 (B, V, H, W, 3), and what their weak labels say.

    Args:
        network: On its device, as it is before the first step.
        method: What is switched on.
        rising: Optimiser steps in which the weight of the consistency rises.
        decay: Of the teacher, an exponential average of the network, which is what is kept; None: there is none.
        prepare: Views uint8 (B, H, W, 3) to the network's input float32 (B, 3, H, W).
        group: The processes that train together.
        classes: Names, background first.
    """

    def __init__(
        self,
        network: Segmenter,
        method: Method,
        *,
        rising: int,
        decay: float | None,
        prepare: Callable[[Tensor], Tensor],
        group: Group,
        classes: Sequence[str],
    ) -> None:
        super().__init__(network, decay)
        self.method, self._rising = method, rising
        self._prepare, self._group, self._classes = prepare, group, classes
        self._shown: Shown | None = None

    def strength(self, step: int) -> float:
        """The factor on the weight of the consistency after ``step`` steps."""
        return ramp(step, 0, self._rising)

    def losses(self, network: Segmenter, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """Each micro batch's share of the losses; see ``training.Objective``."""
        counts = torch.stack([totals(batch["labels"], batch.get("weak_labels")) for batch in batches]).sum(dim=0)
        masked, weak = self._group.total(counts)
        for batch in batches:
            yield self._losses_of_part(network, batch, Totals(masked, weak, step.images), step)

    def _losses_of_part(self, network: Segmenter, batch: Batch, total: Totals, step: Step) -> Losses:
        method = self.method
        views = [batch["image"]]
        learns = method.consistency > 0 and "weak" in batch and method.name != "supervised"
        strong = batch["strong"].flatten(0, 1) if learns and "strong" in batch else None
        if method.uses_labels or (learns and strong is None):
            views.append(batch["weak"])
        if strong is not None:
            views.append(strong)
        sizes = [len(view) for view in views]
        parts = list(network(self._prepare(torch.cat(views))).split(sizes))
        found = {"supervised": mask_loss(parts[0], batch["labels"], total, method)}
        weighted = [found["supervised"]]
        if method.uses_labels:
            for name, (weight, loss) in weak_losses(parts[1], known_of(batch), total, method).items():
                found[name] = loss
                weighted.append(weight * loss)
        targets = None
        if learns:
            seen = parts[-1].unflatten(0, (len(batch["id"]), -1))
            targets = self._targets(batch, seen.shape[1])
            found["consistency"], found["confident"] = mean_teacher_loss(seen, targets, method, images=total.images)
            weighted.append(method.consistency * self.strength(step.number) * found["consistency"])
        if step.drawn and self._shown is None:
            sure = None if targets is None else labelled(targets, method.confidence)
            self._shown = Shown.of(batch, parts[0].detach(), parts[-1].detach() if learns else None, sure)
        return {"loss": torch.stack(weighted).sum(), **found}

    @torch.no_grad()
    def _targets(self, batch: Batch, views: int) -> Tensor:
        """What the teacher sees in the weak views: shares float (B, V, K, h, w)."""
        restrict = self.method.restrict
        inputs = [batch["weak"], *([batch["partner"]] if "partner" in batch else [])]
        own, *other = self.teacher(self._prepare(torch.cat(inputs))).split(len(batch["weak"]))
        return targets_of_views(
            soft_targets(own, batch["allowed"], restrict=restrict),
            soft_targets(other[0], batch["partner_allowed"], restrict=restrict) if other else None,
            batch.get("regions"),
            views,
        )

    def after_step(self, network: Segmenter, step: int) -> dict[str, float]:
        """Let the teacher follow; the strength that the step used joins the curves."""
        self.follow(network, step)
        learns = self.method.name != "supervised" and self.method.consistency > 0
        return {"strength": self.strength(step - 1)} if learns else {}

    def pictures(self) -> dict[str, np.ndarray]:
        """The first micro batch of the last step, if it was to be drawn."""
        if self._shown is None:
            return {}
        shown, self._shown = self._shown, None
        return {"batch": pair_grid(shown, self._classes)}


def known_of(batch: Batch) -> Known:
    """What is known of the weak views of a batch."""
    return Known(batch["weak_labels"], batch["allowed"], batch["present"], batch.get("objectness"))


def labelled(shares: Tensor, confidence: float) -> Tensor:
    """Shares float (..., K, h, w) as labels uint8 (..., h, w), 255 below the confidence."""
    share, label = shares.max(dim=-3)
    return label.masked_fill(share < confidence, IGNORE).to(torch.uint8)
