"""Learning from few masks as what a training descends: the order of a step, and the teacher if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pseudolabel.data.records import IGNORE
from pseudolabel.models.segmenter import Segmenter
from pseudolabel.scribble.losses import ramp
from pseudolabel.scribble.step import Known
from pseudolabel.semi.losses import drop_channels
from pseudolabel.semi.pictures import Shown, pair_grid
from pseudolabel.semi.step import (
    Method,
    Totals,
    hard_targets,
    mask_loss,
    mean_teacher_loss,
    soft_targets,
    targets_of_views,
    totals,
    unimatch_loss,
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
        network: nn.Module,
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

    def losses(self, network: Any, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """Each micro batch's share of the losses; see ``training.Objective``."""
        counts = torch.stack([totals(batch["labels"], batch.get("weak_labels")) for batch in batches]).sum(dim=0)
        masked, weak = self._group.total(counts)
        for batch in batches:
            yield self._losses_of_part(network, batch, Totals(masked, weak, step.images), step)

    def _losses_of_part(self, network: Any, batch: Batch, total: Totals, step: Step) -> Losses:
        method = self.method
        learns = method.learns and "weak" in batch
        views = {"masked": batch["image"]}
        if method.uses_labels or (learns and (method.name == "unimatch" or "strong" not in batch)):
            views["weak"] = batch["weak"]
        if learns and "strong" in batch:
            views["strong"] = batch["strong"].flatten(0, 1)
        features, _ = network.backbone(self._prepare(torch.cat(list(views.values()))))
        sizes = [len(view) for view in views.values()]
        parts = dict(zip(views, features.split(sizes), strict=True))
        logits = dict(zip(views, network.head(features).split(sizes), strict=True))
        found = {"supervised": mask_loss(logits["masked"], batch["labels"], total, method)}
        weighted = [found["supervised"]]
        if method.uses_labels:
            for name, (weight, loss) in weak_losses(logits["weak"], known_of(batch), total, method).items():
                found[name] = loss
                weighted.append(weight * loss)
        targets = None
        if learns:
            compare = self._unimatch if method.name == "unimatch" else self._mean_teacher
            found["consistency"], found["confident"], targets = compare(network, batch, parts, logits, total.images)
            weighted.append(method.consistency * self.strength(step.number) * found["consistency"])
        if step.drawn and self._shown is None:
            seen = logits.get("strong", logits.get("weak"))
            self._shown = Shown.of(batch, logits["masked"].detach(), None if seen is None else seen.detach(), targets)
        return {"loss": torch.stack(weighted).sum(), **found}

    def _mean_teacher(
        self, _: Segmenter, batch: Batch, __: Mapping[str, Tensor], logits: Mapping[str, Tensor], images: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The consistency, how many cells count, and the targets uint8 (B, V, h, w), 255 where they do not."""
        seen = logits.get("strong", logits.get("weak"))
        assert seen is not None  # there is no other view to compare
        seen = seen.unflatten(0, (len(batch["id"]), -1))
        own, other = self._look(self.teacher, batch)
        restrict = self.method.restrict
        targets = targets_of_views(
            soft_targets(own, batch["allowed"], restrict=restrict),
            None if other is None else soft_targets(other, batch["partner_allowed"], restrict=restrict),
            batch.get("regions"),
            seen.shape[1],
        )
        loss, counted = mean_teacher_loss(seen, targets, self.method, images=images)
        return loss, counted, labelled(targets, self.method.confidence)

    def _unimatch(
        self,
        network: Segmenter,
        batch: Batch,
        features: Mapping[str, Tensor],
        logits: Mapping[str, Tensor],
        images: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Likewise; the network itself labels the weak views."""
        method = self.method
        own = hard_targets(logits["weak"], batch["weak_labels"], batch["allowed"], method)
        other = None
        if "partner" in batch:
            _, looked = self._look(network, batch, weak=False)
            assert looked is not None
            other = hard_targets(looked, batch["partner_labels"], batch["partner_allowed"], method)
        strong = logits["strong"].unflatten(0, (len(own), -1)) if "strong" in logits else None
        targets = targets_of_views(own, other, batch.get("regions"), 1 if strong is None else strong.shape[1])
        perturbed = None
        if method.perturbation is not None:
            perturbed = network.head(drop_channels(features["weak"], batch["noise"], method.perturbation))
        loss = unimatch_loss(strong, perturbed, own, targets, images)
        return loss, (own != IGNORE).float().mean(dim=(1, 2)).sum() / images, targets

    @torch.no_grad()
    def _look(self, network: Any, batch: Batch, *, weak: bool = True) -> tuple[Tensor, Tensor | None]:
        """Logits of the weak views and of their partners, in evaluation mode; of the latter alone if told so."""
        partner = [batch["partner"]] if "partner" in batch else []
        with evaluating(network):
            logits = network(self._prepare(torch.cat([*([batch["weak"]] if weak else []), *partner])))
        return logits[: len(batch["id"])], logits[-len(batch["id"]) :] if partner else None

    def after_step(self, network: nn.Module, step: int) -> dict[str, float]:
        """Let the teacher follow; the strength that the step used joins the curves."""
        self.follow(network, step)
        return {"strength": self.strength(step - 1)} if self.method.learns else {}

    def pictures(self) -> dict[str, np.ndarray]:
        """The first micro batch of the last step, if it was to be drawn."""
        if self._shown is None:
            return {}
        shown, self._shown = self._shown, None
        return {"batch": pair_grid(shown, self._classes)}


def known_of(batch: Batch) -> Known:
    """What is known of the weak views of a batch."""
    return Known(batch["weak_labels"], batch["allowed"], batch["present"], batch.get("objectness"))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode for a while; afterwards every part is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def labelled(shares: Tensor, confidence: float) -> Tensor:
    """Shares float (..., K, h, w) as labels uint8 (..., h, w), 255 below the confidence."""
    share, label = shares.max(dim=-3)
    return label.masked_fill(share < confidence, IGNORE).to(torch.uint8)
