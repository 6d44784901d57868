"""What images without masks teach, as losses of logits; each is a share of the whole batch's loss.

As in ``pseudolabel.scribble.losses`` what a loss divides by follows from the batch alone and is passed in: the losses
of the parts of a batch, and their gradients, sum to those of the whole. Without it a part is the whole batch. Targets
have no gradient: who made them is not taught by them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.pairwise.features import as_float


def confident_cells(shares: Tensor, confidence: float) -> Tensor:
    """The cells whose largest share is at least ``confidence``: bool (B, h, w) of shares float (B, K, h, w)."""
    return shares.amax(dim=1) >= confidence


def mixed(own: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Targets of a mixed view: another image's inside the region, its own elsewhere.

    Args:
        own: (B, h, w) or (B, K, h, w).
        other: Likewise, of the images that are shown inside.
        inside: bool (B, h, w).
    """
    return torch.where(inside if own.ndim == 3 else inside[:, None], other, own)


def squared_difference(
    logits: Tensor, targets: Tensor, *, counted: Tensor | None = None, images: int | None = None
) -> Tensor:
    """Mean teacher's consistency (Tarvainen and Valpola 2017): |softmax(logits) - target|^2, mean over cells. [def]

    Args:
        logits: float (B, K, h, w), the student's.
        targets: float (B, K, h, w), the teacher's shares; no gradient reaches them.
        counted: bool (B, h, w), the cells that count (French et al. 2020); the mean is over all cells all the same, so
            that few sure cells teach little. None: all.
        images: Of the whole batch; None: these.

    Returns:
        A scalar, in [0, 2].
    """
    each = (as_float(logits).softmax(dim=1) - targets.detach()).square().sum(dim=1)
    if counted is not None:
        each = each * counted
    return each.mean(dim=(1, 2)).sum() / (images or max(1, len(logits)))


def hard_cross_entropy(logits: Tensor, labels: Tensor, *, images: int | None = None) -> Tensor:
    """UniMatch's consistency: cross entropy of the cells with a label, over the number of all cells. [read: Co2S]

    As few cells are labelled where the network is seldom sure, little is learnt then.

    Args:
        logits: float (B, K, h, w).
        labels: uint8 (B, h, w), 255 = not sure enough.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the mean over all cells of an image, then over images.
    """
    each = F.cross_entropy(as_float(logits), labels.long(), ignore_index=IGNORE, reduction="none")
    return each.mean(dim=(1, 2)).sum() / (images or max(1, len(logits)))


def drop_channels(features: Tensor, noise: Tensor, share: float) -> Tensor:
    """Features with some channels set to 0 and the others scaled up: UniMatch's feature perturbation. [read: Co2S]

    Args:
        features: float (B, D, h, w).
        noise: float (B, D), uniform in [0, 1); a channel whose number lies below the share is dropped.
        share: In [0, 1).
    """
    kept = (noise >= share).to(features) / (1 - share)
    return features * kept[:, :, None, None]
