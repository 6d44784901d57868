"""One step of learning from mixed weak labels, as functions of tensors: what is known of a view, and what it costs.

For the parts of an effective batch, micro batches here or on other processes: add up ``totals`` over the parts, then
take ``losses`` of each, whose gradients sum to those of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel.cosa.assignments import cells_inside
from pseudolabel.cosa.losses import resized
from pseudolabel.data.records import IGNORE
from pseudolabel.models.scribble import ScribbleOutput
from pseudolabel.scribble.consistency import consistency_loss, known_labels, labels_on_grid
from pseudolabel.scribble.losses import (
    exclusion_loss,
    labelled_pixels,
    objectness_loss,
    partial_cross_entropy,
    presence_loss,
)
from pseudolabel.scribble.regularisers import Regulariser


@dataclass(frozen=True)
class Method:
    """What is switched on, and how strong it is; None is off. The defaults are DFR's.

    Attributes:
        by_image: Whether the partial cross entropy counts images alike, or labelled pixels.
        regulariser: Weight of the regulariser, on top of its own.
        consistency: Weight of the feature consistency.
        confidence: Least share of a prediction that labels a cell for it; None: only what is labelled counts.
        cells: Cells chosen from an image for it.
        temperature: Of its probability.
        bias: Likewise.
        exclusion: Weight of the loss on classes that boxes and tags exclude.
        presence: Weight of the loss on tagged classes that are labelled nowhere.
        objectness: Weight of the loss against the prior of where objects are.
    """

    by_image: bool = False
    regulariser: float | None = 1.0
    consistency: float | None = 0.1
    confidence: float | None = 0.9
    cells: int = 64
    temperature: float = 0.1
    bias: float = 0.5
    exclusion: float | None = None
    presence: float | None = None
    objectness: float | None = None


class Known(NamedTuple):
    """What is known about the views of a part of a batch, whatever kinds of weak labels it is from.

    Attributes:
        labels: uint8 (B, H, W): scribbles, points, filled boxes or whole masks; 255 = unlabelled or padding.
        allowed: bool (B, K, h, w) or (B, K, 1, 1): the classes that a cell may have; all where nothing is known.
        present: bool (B, C): classes that must be in the view somewhere.
        objectness: float (B, h', w') in [0, 1], NaN where nothing is known; None: not used.
        inside: bool (B, H, W), False where a pixel is padding; None: there is none.
    """

    labels: Tensor
    allowed: Tensor
    present: Tensor
    objectness: Tensor | None = None
    inside: Tensor | None = None


def unlabelled_tags(labels: Tensor, tags: Tensor) -> Tensor:
    """The tagged classes that no pixel of a view is labelled with: only tags say that they are there.

    Args:
        labels: uint8 (B, H, W), 255 = unlabelled.
        tags: float or bool (B, C), above 0 where a class occurs.

    Returns:
        bool (B, C).
    """
    found = torch.zeros(len(labels), IGNORE + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, labels.flatten(1).long(), value=True)
    return (tags > 0) & ~found[:, 1 : tags.shape[1] + 1]


def totals(known: Known) -> Tensor:
    """What the losses divide by, to be added up over the parts of a batch: (2,), labelled pixels and images."""
    pixels = labelled_pixels(known.labels)[None]
    return torch.cat([pixels, torch.full_like(pixels, len(known.labels))])


def losses(
    output: ScribbleOutput,
    known: Known,
    method: Method,
    *,
    total: Tensor,
    photographs: Tensor,
    noise: Tensor,
    regulariser: Regulariser | None,
    strength: float = 1.0,
    guide: Tensor | None = None,
) -> dict[str, Tensor]:
    """A part's share of each loss, by name and without its weight; ``loss`` is their weighted sum.

    Args:
        output: The network's, of the views.
        known: About the same views.
        method: The settings.
        total: ``totals`` of the whole batch.
        photographs: uint8 (B, 3, H, W), the views before they were normalised.
        noise: float (B, h, w), random, drawn for each image.
        regulariser: Of ``build_regulariser``; None: there is none.
        strength: In [0, 1], of ``losses.ramp``: a factor on the regulariser's weight. At 0 the regulariser is not
            computed, and no prediction counts as a label yet.
        guide: float (B, K, h, w), logits whose confident predictions count as labels; None: the network's own.
    """
    images = int(total[1])
    enlarged = resized(output.segmentation, known.labels.shape[1:])
    by_image = method.by_image
    found = {"partial": partial_cross_entropy(enlarged, known.labels, total=total[0], images=images, by_image=by_image)}
    weights = {"partial": 1.0}
    if method.regulariser is not None:
        assert regulariser is not None  # a weight is for something
        weights["regulariser"] = method.regulariser * strength
        found["regulariser"] = enlarged.new_zeros(())
        if strength > 0:
            shares = enlarged.softmax(dim=1)
            found["regulariser"] = _regularised(regulariser, photographs, shares, known, output.embedding, images)
    if method.consistency is not None:
        weights["consistency"] = method.consistency
        found["consistency"] = _consistency(output, known, method, noise, images, sure=strength > 0, guide=guide)
    if method.exclusion is not None:
        weights["exclusion"] = method.exclusion
        cells = _cells(known, output.segmentation)
        found["exclusion"] = exclusion_loss(output.segmentation, known.allowed, inside=cells, images=images)
    if method.presence is not None:
        weights["presence"] = method.presence
        found["presence"] = presence_loss(output.segmentation, known.present, known.allowed, images=images)
    if method.objectness is not None:
        assert known.objectness is not None  # NaN says that nothing is known
        weights["objectness"] = method.objectness
        found["objectness"] = objectness_loss(output.segmentation, known.objectness, images=images)
    return {"loss": torch.stack([weights[name] * loss for name, loss in found.items()]).sum(), **found}


def _regularised(
    regulariser: Regulariser, photographs: Tensor, shares: Tensor, known: Known, embedding: Tensor | None, images: int
) -> Tensor:
    """The regulariser on those images that are not labelled throughout; the others have all that it could teach.

    NaN where the embedding is not finite, of which no kernel can be built: the training stops by its loss.
    """
    if embedding is not None and not embedding.isfinite().all():
        return shares.sum() * torch.nan
    unlabelled = known.labels == IGNORE
    if known.inside is not None:
        unlabelled &= known.inside
    chosen = unlabelled.flatten(1).any(dim=1)
    mean: Tensor = regulariser(
        photographs[chosen],
        shares[chosen],
        None if known.inside is None else known.inside[chosen],
        None if embedding is None else embedding[chosen],
    )
    return mean * (chosen.sum() / images)


def _consistency(
    output: ScribbleOutput,
    known: Known,
    method: Method,
    noise: Tensor,
    images: int,
    *,
    sure: bool,
    guide: Tensor | None,
) -> Tensor:
    assert output.embedding is not None  # a network for this method has the head
    logits = (output.segmentation if guide is None else guide).detach().float()
    grid = (logits.shape[2], logits.shape[3])
    labels = known_labels(
        labels_on_grid(known.labels, grid),
        logits.softmax(dim=1),
        method.confidence if sure else None,
        allowed=known.allowed,
    )
    cells = _cells(known, logits)
    if cells is not None:
        labels = labels.masked_fill(~cells, IGNORE)
    return consistency_loss(
        output.embedding,
        labels,
        noise,
        most=method.cells,
        temperature=method.temperature,
        bias=method.bias,
        images=images,
    )


def _cells(known: Known, logits: Tensor) -> Tensor | None:
    """The cells that lie wholly inside, None where there is no padding."""
    return None if known.inside is None else cells_inside(known.inside, (logits.shape[2], logits.shape[3]))
