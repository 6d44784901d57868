"""CCVC's losses (conflict-based cross-view consistency, CVPR 2023) as functions of tensors, and its training step.

Two networks label each other's images; where they disagree and the label is sure, it weighs more; and their features
are pushed apart, so that they do not make the same mistakes. The released code compares raw logits with the threshold,
not softmax shares as here, so that nearly every disagreement counted as sure. [read]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.models.pair import PairNetwork
from pseudolabel.pairwise.features import as_float
from pseudolabel.semi.learning import SemiLearning, evaluating, known_of
from pseudolabel.semi.pictures import Shown
from pseudolabel.semi.step import Totals, hard_targets, mask_loss, soft_targets, targets_of_views, weak_losses
from pseudolabel.training import Batch, Losses, Step
from pseudolabel.training.run import Arrays

_BOTH = (0, 1)


def conflict_weights(own: Tensor, other: Tensor, *, confidence: float, weight: float) -> Tensor:
    """How much the labels of a prediction weigh: more where another one differs and this one is sure. [read]

    Args:
        own: Shares float (B, K, h, w), whose labels are learnt from.
        other: Likewise, of who learns.
        confidence: Theta: the largest share has to be above it. [ours: the released code compares the logit]
        weight: Of a label in conflict; others weigh 1.

    Returns:
        float (B, h, w).
    """
    share, label = own.max(dim=1)
    conflict = (label != other.argmax(dim=1)) & (share > confidence)
    return torch.where(conflict, weight, 1.0)


def cross_supervision(logits: Tensor, labels: Tensor, weights: Tensor, *, images: int | None = None) -> Tensor:
    """Weighted cross entropy with the other network's labels, mean over cells: weights are not normalised. [read]

    Args:
        logits: float (B, K, h, w).
        labels: uint8 (B, h, w), of every cell.
        weights: float (B, h, w), of ``conflict_weights`` of who made the labels.
        images: Of the whole batch; None: these.
    """
    each = F.cross_entropy(as_float(logits), labels.long(), reduction="none") * weights
    return each.mean(dim=(1, 2)).sum() / (images or max(1, len(logits)))


def discrepancy(first: Tensor, second: Tensor, *, images: int | None = None) -> Tensor:
    """1 plus the mean cosine of two networks' features, half of it taught to each: it pushes them apart. [read]

    Args:
        first: float (B, D, h, w).
        second: Likewise.
        images: Of the whole batch; None: these.

    Returns:
        A scalar in [0, 2]; 1 where the features are orthogonal.
    """
    first, second = as_float(first), as_float(second)
    cosines = [F.cosine_similarity(first.detach(), second, dim=1), F.cosine_similarity(first, second.detach(), dim=1)]
    by_image = torch.stack(cosines).mean(dim=(0, 2, 3)) + 1
    return by_image.sum() / (images or max(1, len(first)))


class CrossLearning(SemiLearning):
    """CCVC, step by step; an ``Objective`` of a ``PairNetwork``. Batches are those of ``SemiLearning``."""

    def _losses_of_part(self, network: PairNetwork, batch: Batch, total: Totals, step: Step) -> Losses:
        method, images = self.method, total.images
        learns = method.learns and "weak" in batch
        views = {"masked": batch["image"]}
        if learns or method.uses_labels:
            views["weak"] = batch["weak"]
        if learns and "strong" in batch:
            views["strong"] = batch["strong"].flatten(0, 1)
        sizes = [len(view) for view in views.values()]
        inputs = self._prepare(torch.cat(list(views.values())))
        features = (network.first.backbone(inputs)[0], network.second.features(inputs))
        logits = [
            dict(zip(views, one.head(found).split(sizes), strict=True))
            for one, found in zip((network.first, network.second), features, strict=True)
        ]
        found = {"supervised": _mean([mask_loss(one["masked"], batch["labels"], total, method) for one in logits])}
        weighted = [found["supervised"]]
        if method.uses_labels:
            known = known_of(batch)
            both = [weak_losses(one["weak"], known, total, method) for one in logits]
            for name, (weight, _) in both[0].items():
                found[name] = _mean([losses[name][1] for losses in both])
                weighted.append(weight * found[name])
        targets = None
        if learns:
            strength = self.strength(step.number)
            found["consistency"], found["conflict"], targets = self._consistency(network, batch, logits, images)
            weighted.append(method.consistency * strength * found["consistency"])
            if method.discrepancy:
                plain = [part[: sum(sizes[:2])] for part in features]  # of masked and weak views, as many of each
                found["discrepancy"] = discrepancy(plain[0], plain[1], images=2 * images)
                weighted.append(method.discrepancy * strength * found["discrepancy"])
        if step.drawn and self._shown is None:
            seen = logits[0].get("strong", logits[0].get("weak")) if learns else None
            masked = logits[0]["masked"].detach()
            self._shown = Shown.of(batch, masked, None if seen is None else seen.detach(), targets)
        return {"loss": torch.stack(weighted).sum(), **found}

    def _consistency(
        self, network: PairNetwork, batch: Batch, logits: list[dict[str, Tensor]], images: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean over weak and strong views, the share of cells in conflict, and the labels uint8 (B, V, h, w)."""
        parts = []
        labels, shares = self._targets([one["weak"] for one in logits], batch, "")
        weights = self._weights(shares)
        for own in _BOTH:  # what the one sees, the other learns
            parts.append(cross_supervision(logits[1 - own]["weak"], labels[own], weights[own], images=images))
        conflict = (shares[0].argmax(dim=1) != shares[1].argmax(dim=1)).float().mean(dim=(1, 2)).sum() / images
        shown = labels[1][:, None]
        if "strong" in logits[0]:
            shown, strong = self._strong(network, batch, logits, images)
            parts += strong
        return _mean(parts), conflict, shown

    def _strong(
        self, network: PairNetwork, batch: Batch, logits: list[dict[str, Tensor]], images: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The labels of the strong views that the first network learns, and both networks' losses."""
        views = batch["strong"].shape[1]
        seen = [batch["weak"], *([batch["partner"]] if "partner" in batch else [])]
        with torch.no_grad(), evaluating(network):
            inputs = self._prepare(torch.cat(seen))
            looked = [one(inputs).split(len(batch["weak"])) for one in (network.first, network.second)]
        own = self._targets([one[0] for one in looked], batch, "")
        other = self._targets([one[1] for one in looked], batch, "partner_") if "partner" in batch else None
        regions = batch.get("regions")
        mixed_labels, mixed_shares = (
            [targets_of_views(own[kind][i], None if other is None else other[kind][i], regions, views) for i in _BOTH]
            for kind in _BOTH
        )
        weights = self._weights([shares.flatten(0, 1) for shares in mixed_shares])
        losses = [
            cross_supervision(logits[1 - i]["strong"], mixed_labels[i].flatten(0, 1), weights[i], images=views * images)
            for i in _BOTH
        ]
        return mixed_labels[1], losses

    def _targets(self, logits: list[Tensor], batch: Batch, whose: str) -> tuple[list[Tensor], list[Tensor]]:
        """Labels uint8 (B, h, w) and shares float (B, K, h, w) of both networks."""
        drawn = batch["weak_labels" if not whose else f"{whose}labels"]
        allowed = batch[f"{whose}allowed"]
        labels = [hard_targets(one, drawn, allowed, self.method, confidence=0.0) for one in logits]
        return labels, [soft_targets(one, allowed, restrict=self.method.restrict) for one in logits]

    def _weights(self, shares: list[Tensor]) -> list[Tensor]:
        method = self.method
        return [
            conflict_weights(shares[i], shares[1 - i], confidence=method.confidence, weight=method.conflict_weight)
            for i in _BOTH
        ]

    def checkpoint(self, network: PairNetwork) -> Arrays:
        """What is kept of both networks, as two groups of weights."""
        kept = self.kept(network)
        return {**weight_arrays(kept.first.state_dict()), **weight_arrays(kept.second.state_dict(), "second")}


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean()
