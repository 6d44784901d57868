"""What each kind of weak label teaches, as losses of logits; each is a share of the whole batch's loss.

A training image says up to four things: which class some pixels have (scribbles, points, filled boxes, masks), which
classes a pixel may have at all (boxes and tags), which classes are somewhere (tags), and where objects are likely
(CAMs). There is one loss for each, so that one code path serves images of all kinds in one batch. As in
``pseudolabel.cosa.losses`` whatever a loss divides by follows from the labels alone and is passed in, so that the
losses of the parts of a batch, and their gradients, sum to those of the whole. Without it a part is the whole batch.

Every loss is finite for every batch. Where nothing is said it is zero with a zero gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.cosa.losses import resized
from pseudolabel.data.records import IGNORE
from pseudolabel.pairwise.features import as_float
from pseudolabel.runtime.devices import wide_dtype


def ramp(step: int, start: int, length: int) -> float:
    """The factor of a weight that is 0 up to step ``start`` and rises linearly to 1 at ``start + length``.

    Args:
        step: Number of the step, from 0.
        start: The last step at which the factor is 0; with a length of 0 the first at which it is 1.
        length: Steps in which it rises; 0 is a jump.
    """
    if length == 0:
        return float(step >= start)
    return min(1.0, max(0.0, (step - start) / length))


def labelled_pixels(labels: Tensor) -> Tensor:
    """What ``partial_cross_entropy`` divides by: how many pixels are labelled, () of ``wide_dtype``; parts add up."""
    return (labels != IGNORE).sum(dtype=wide_dtype(labels.device))


def partial_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    total: Tensor | None = None,
    images: int | None = None,
    by_image: bool = False,
) -> Tensor:
    """Cross entropy over the labelled pixels only. [def]

    Over all labelled pixels of a batch alike, one image with a mask outweighs a hundred with scribbles. ``by_image``
    takes the mean over an image's labelled pixels first and then the mean over all images, labelled or not. [ours]

    Args:
        logits: float (B, K, h, w), enlarged bilinearly to the labels' size if they are smaller.
        labels: uint8 (B, H, W), 255 = unlabelled.
        total: ``labelled_pixels`` of the whole batch; None: of these. Without ``by_image``.
        images: Of the whole batch; None: these. With ``by_image``.
        by_image: Whether images count alike, or pixels.

    Returns:
        A scalar.
    """
    each = F.cross_entropy(resized(logits, labels.shape[1:]), labels.long(), ignore_index=IGNORE, reduction="none")
    if by_image:
        counts = (labels != IGNORE).sum(dim=(1, 2)).clamp(min=1)
        return (each.sum(dim=(1, 2)) / counts).sum() / (images or max(1, len(labels)))
    found = labelled_pixels(labels) if total is None else total
    return each.sum() / found.clamp(min=1).to(each)


def exclusion_loss(
    logits: Tensor, allowed: Tensor, *, inside: Tensor | None = None, images: int | None = None
) -> Tensor:
    """No cell has a class that it may not have: -log of the share of those that it may have, mean over cells. [ours]

    Tags allow their classes and background everywhere; boxes allow a class inside its boxes only, so that outside of
    all boxes this is the cross entropy of background. Where one class alone is allowed it is the partial cross entropy.

    Args:
        logits: float (B, K, h, w).
        allowed: bool (B, K, h, w), or (B, K, 1, 1) for what holds everywhere; at least one class of every cell.
        inside: bool (B, h, w), False where a cell is padding; None: there is none.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the mean over an image's cells, then over images.
    """
    logits = as_float(logits)
    each = logits.logsumexp(dim=1) - logits.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    if inside is None:
        by_image = each.mean(dim=(1, 2))
    else:
        by_image = each.masked_fill(~inside, 0).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
    return by_image.sum() / (images or max(1, len(logits)))


def presence_loss(logits: Tensor, present: Tensor, allowed: Tensor, *, images: int | None = None) -> Tensor:
    """Every class that must be somewhere is sure of one cell: -log of its largest share, mean over such classes.

    The image level loss of Bearman et al. 2016 (arXiv 1506.02106). [paper: the idea] [ours: form]

    Args:
        logits: float (B, K, h, w).
        present: bool (B, C): classes that are in the view, nobody knows where.
        allowed: bool (B, K, h, w) or (B, K, 1, 1): the largest share is looked for in these cells only. A class that
            is allowed nowhere does not count.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the mean over an image's classes, then over images.
    """
    there = allowed[:, 1:]
    shares = as_float(logits).log_softmax(dim=1)[:, 1:]
    wanted = present & there.flatten(2).any(dim=2)
    best = shares.masked_fill(~there, -torch.inf).amax(dim=(2, 3))
    by_image = best.masked_fill(~wanted, 0).sum(dim=1) / wanted.sum(dim=1).clamp(min=1)
    return -by_image.sum() / (images or max(1, len(logits)))


def objectness_loss(logits: Tensor, objectness: Tensor, *, images: int | None = None) -> Tensor:
    """Binary cross entropy between "some object class" and a prior of where objects are, mean over cells.

    Bearman et al. 2016 (arXiv 1506.02106), with a CAM in the place of their prior. [paper: the idea] [ours: form]

    Args:
        logits: float (B, K, h, w), enlarged bilinearly to the prior's size if they are smaller.
        objectness: float (B, h', w') in [0, 1]; NaN where nothing is known.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the mean over an image's known cells, then over images.
    """
    logits = resized(logits, objectness.shape[1:])
    known = ~objectness.isnan()
    wanted = objectness.to(logits).nan_to_num()
    every, objects = logits.logsumexp(dim=1), logits[:, 1:].logsumexp(dim=1)
    each = (every - wanted * objects - (1 - wanted) * logits[:, 0]) * known
    return (each.sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)).sum() / (images or max(1, len(logits)))
