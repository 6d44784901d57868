"""DFR's feature consistency: an embedding h that agrees for cells of one class and differs otherwise.

The paper (arXiv 2108.01296) has a head on transformer features that is trained on pairs of pixels. The binary cross
entropy on the cosine, which cells are paired and what they are labelled by are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.cosa.losses import sample_cells
from pseudolabel.data.records import IGNORE
from pseudolabel.pairwise.features import as_float
from pseudolabel.scribble.boxes import bounded


def labels_on_grid(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The commonest label of every cell; unlabelled pixels do not count, or thin scribbles would be lost. [ours]

    Args:
        labels: uint8 (B, H, W), 255 = unlabelled.
        grid: h and w, not more than H and W; pixel (y, x) is in cell (floor(y h / H), floor(x w / W)).

    Returns:
        uint8 (B, h, w), 255 where no pixel of a cell is labelled; of equally common labels the lowest.
    """
    batch, height, width = labels.shape
    image, y, x = (labels != IGNORE).nonzero(as_tuple=True)
    cell = (image * grid[0] + y * grid[0] // height) * grid[1] + x * grid[1] // width
    cells = batch * grid[0] * grid[1]
    counts = torch.bincount(cell * IGNORE + labels[image, y, x], minlength=cells * IGNORE).view(cells, IGNORE)
    most, label = counts.max(dim=1)
    return label.masked_fill(most == 0, IGNORE).to(torch.uint8).view(batch, *grid)


def known_labels(
    scribbles: Tensor, shares: Tensor, confidence: float | None, *, allowed: Tensor | None = None
) -> Tensor:
    """The scribble's label where there is one, else the prediction where it is confident, else 255.

    Args:
        scribbles: uint8 (B, h, w), 255 = unlabelled.
        shares: float (B, K, h, w), softmax; no gradient reaches it.
        confidence: Least share of a prediction that counts; None: predictions do not count.
        allowed: bool (B, K, h, w) or (B, K, 1, 1): other classes are left out of the prediction; None: no class.

    Returns:
        uint8 (B, h, w).
    """
    if confidence is None:
        return scribbles
    known = shares.detach() if allowed is None else bounded(shares.detach(), allowed)
    share, label = known.max(dim=1)
    predicted = label.masked_fill(share < confidence, IGNORE).to(torch.uint8)
    return torch.where(scribbles == IGNORE, predicted, scribbles)


def consistency_loss(
    embedding: Tensor,
    labels: Tensor,
    noise: Tensor,
    *,
    most: int,
    temperature: float = 0.1,
    bias: float = 0.5,
    images: int | None = None,
) -> Tensor:
    """Binary cross entropy of "same class" for pairs of cells of one image. [paper: the idea] [ours: form, constants]

    P(same) = sigmoid((cos(h_i, h_j) - bias) / temperature), and an image's loss is

        -1/2 mean over pairs of one class of log P - 1/2 mean over pairs of two classes of log(1 - P),

    so that both kinds count alike however many there are of each. With a bias of 1/2 classes need to be orthogonal, not
    opposite, which more than two could not be. Background is a class.

    Args:
        embedding: float (B, D, h, w), of length 1 at every cell.
        labels: uint8 (B, h, w), 255 = unknown.
        noise: float (B, h, w), of ``cosa.losses.sample_cells``.
        most: Cells chosen from an image, in turn from each of its labels; all their pairs count.
        temperature: Above 0.
        bias: The cosine at which both are equally likely.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the mean over images.
    """
    cells, label = sample_cells(labels, noise, most)
    features = as_float(embedding).flatten(2)
    chosen = features.gather(2, cells[:, None].expand(-1, features.shape[1], -1))
    with torch.autocast(chosen.device.type, enabled=False):  # or bfloat16 would blur what is alike
        evidence = (chosen.mT @ chosen - bias) / temperature  # (B, n, n)
    known = label != IGNORE
    pair = (known[:, :, None] & known[:, None]).triu(diagonal=1)  # each pair once, no cell with itself
    same = label[:, :, None] == label[:, None]
    alike, apart = pair & same, pair & ~same
    by_image = (_mean(F.softplus(-evidence), alike) + _mean(F.softplus(evidence), apart)) / 2
    return by_image.sum() / (images or max(1, len(labels)))


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Each image's mean over the pairs (B, n, n) at ``where``; 0 where there is none."""
    return (values * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1)
