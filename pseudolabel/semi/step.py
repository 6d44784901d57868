"""One step of learning from few masks, as functions of tensors: what masks teach, weak labels, and consistency.

For the parts of an effective batch, micro batches here or on other processes: add up ``totals`` over the parts, then
take the losses of each, whose gradients sum to those of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel.cosa.losses import resized
from pseudolabel.scribble.boxes import bounded
from pseudolabel.scribble.consistency import known_labels, labels_on_grid
from pseudolabel.scribble.losses import (
    exclusion_loss,
    labelled_pixels,
    objectness_loss,
    partial_cross_entropy,
    presence_loss,
)
from pseudolabel.scribble.step import Known
from pseudolabel.semi.losses import confident_cells, hard_cross_entropy, mixed, squared_difference


@dataclass(frozen=True)
class Method:
    """What is switched on, and how strong it is; None is off.

    Attributes:
        name: ``supervised``, ``mean-teacher``, ``unimatch`` or ``ccvc``.
        consistency: Weight of the consistency loss; 0 is off.
        confidence: Least share of a prediction that counts as a target.
        perturbation: Share of the feature channels that unimatch drops in a view of its own; None: no such view.
        conflict_weight: Of ccvc's labels that are sure and in conflict with the other network's; 1 is off.
        discrepancy: Weight of ccvc's loss that pushes features apart; None is off.
        restrict: Whether targets are restricted to the classes that tags and boxes allow.
        by_image: Whether the cross entropy counts images alike, or labelled pixels.
        partial: Weight of the cross entropy on the labelled pixels of images without masks.
        exclusion: Weight of the loss on classes that boxes and tags exclude.
        presence: Weight of the loss on tagged classes that are labelled nowhere.
        objectness: Weight of the loss against the prior of where objects are.
    """

    name: str
    consistency: float = 1.0
    confidence: float = 0.0
    perturbation: float | None = None
    conflict_weight: float = 1.0
    discrepancy: float | None = None
    restrict: bool = True
    by_image: bool = False
    partial: float | None = None
    exclusion: float | None = None
    presence: float | None = None
    objectness: float | None = None

    @property
    def learns(self) -> bool:
        """Whether images without masks teach by their views."""
        return self.name != "supervised" and self.consistency > 0

    @property
    def uses_labels(self) -> bool:
        """Whether a loss of weak labels is switched on."""
        return any((self.partial, self.exclusion, self.presence, self.objectness))


class Totals(NamedTuple):
    """What the losses divide by, over the whole batch.

    Attributes:
        masked: Labelled pixels of images with masks.
        weak: Labelled pixels of images without.
        images: Pairs of images.
    """

    masked: Tensor
    weak: Tensor
    images: int


def totals(labels: Tensor, weak: Tensor | None) -> Tensor:
    """The first two of ``Totals`` for a part, to be added up: (2,), of uint8 (B, H, W) each; None: there is none."""
    found = labelled_pixels(labels)
    return torch.stack([found, torch.zeros_like(found) if weak is None else labelled_pixels(weak)])


def mask_loss(logits: Tensor, labels: Tensor, total: Totals, method: Method) -> Tensor:
    """Cross entropy on the pixels of masks, at their resolution.

    Args:
        logits: float (B, K, h, w).
        labels: uint8 (B, H, W), 255 = ignored.
        total: Of the whole batch.
        method: The settings.
    """
    enlarged = resized(logits, labels.shape[1:])
    return partial_cross_entropy(enlarged, labels, total=total.masked, images=total.images, by_image=method.by_image)


def weak_losses(logits: Tensor, known: Known, total: Totals, method: Method) -> dict[str, tuple[float, Tensor]]:
    """Weight and loss of each kind of weak label that is switched on, by name.

    Args:
        logits: float (B, K, h, w), of the weak views of images without masks.
        known: What their labels say.
        total: Of the whole batch.
        method: The settings.
    """
    images, found = total.images, {}
    if method.partial:
        enlarged = resized(logits, known.labels.shape[1:])
        loss = partial_cross_entropy(enlarged, known.labels, total=total.weak, images=images, by_image=method.by_image)
        found["partial"] = method.partial, loss
    if method.exclusion:
        found["exclusion"] = method.exclusion, exclusion_loss(logits, known.allowed, images=images)
    if method.presence:
        found["presence"] = method.presence, presence_loss(logits, known.present, known.allowed, images=images)
    if method.objectness:
        assert known.objectness is not None  # NaN says that nothing is known
        found["objectness"] = method.objectness, objectness_loss(logits, known.objectness, images=images)
    return found


def soft_targets(logits: Tensor, allowed: Tensor, *, restrict: bool) -> Tensor:
    """A prediction as a target: shares float (B, K, h, w), of classes that are allowed alone if asked for.

    Args:
        logits: float (B, K, h, w).
        allowed: bool (B, K, h, w), the classes that a cell may have.
        restrict: Whether the others are removed.
    """
    shares = logits.detach().float().softmax(dim=1)
    return bounded(shares, allowed) if restrict else shares


def mean_teacher_loss(logits: Tensor, targets: Tensor, method: Method, *, images: int) -> tuple[Tensor, Tensor]:
    """The consistency of views with their targets, and how many cells count: share of the batch's, each ().

    Args:
        logits: float (B, V, K, h, w), the student's.
        targets: float (B, V, K, h, w), the teacher's.
        method: The settings.
        images: Of the whole batch.
    """
    views = logits.shape[1]
    flat, wanted = logits.flatten(0, 1), targets.flatten(0, 1)
    counted = confident_cells(wanted, method.confidence)
    loss = squared_difference(flat, wanted, counted=counted, images=views * images)
    return loss, counted.float().mean(dim=(1, 2)).sum() / (views * images)


def hard_targets(
    logits: Tensor, labels: Tensor, allowed: Tensor, method: Method, *, confidence: float | None = None
) -> Tensor:
    """A prediction as labels of cells: uint8 (B, h, w), 255 where it is not sure; weak labels stand as they are. [ours]

    Args:
        logits: float (B, K, h, w).
        labels: uint8 (B, H, W), weak labels; 255 = unlabelled.
        allowed: bool (B, K, h, w), the classes that a cell may have.
        method: The settings.
        confidence: Least share that is sure; None: the method's.
    """
    least = method.confidence if confidence is None else confidence
    shares = logits.detach().float().softmax(dim=1)
    drawn = labels_on_grid(labels, (logits.shape[2], logits.shape[3]))
    return known_labels(drawn, shares, least, allowed=allowed if method.restrict else None)


def unimatch_loss(strong: Tensor | None, perturbed: Tensor | None, own: Tensor, views: Tensor, images: int) -> Tensor:
    """Half the mean over strong views and half the view with dropped channels; the whole of one without the other.

    Args:
        strong: Logits float (B, V, K, h, w); None: there are no strong views.
        perturbed: Logits float (B, K, h, w) of weak views; None: no channels are dropped.
        own: Labels uint8 (B, h, w) of the weak views.
        views: Labels uint8 (B, V, h, w) of the strong ones.
        images: Of the whole batch.
    """
    parts = []
    if strong is not None:
        parts.append(hard_cross_entropy(strong.flatten(0, 1), views.flatten(0, 1), images=strong.shape[1] * images))
    if perturbed is not None:
        parts.append(hard_cross_entropy(perturbed, own, images=images))
    return torch.stack(parts).mean()


def targets_of_views(own: Tensor, other: Tensor | None, regions: Tensor | None, views: int) -> Tensor:
    """The targets of an image's views: of itself, and inside the regions of the image that is shown there.

    Args:
        own: (B, h, w) or (B, K, h, w), of the weak views.
        other: Likewise, of the images that are shown in regions; None: there are none.
        regions: bool (B, V, h, w); None with ``other``.
        views: V.

    Returns:
        (B, V, h, w) or (B, V, K, h, w).
    """
    if other is None or regions is None:
        return own[:, None].expand(-1, views, *own.shape[1:])
    return torch.stack([mixed(own, other, regions[:, view]) for view in range(views)], dim=1)
