"""Propagation of maps along an affinity between cells: where the affinity comes from, and what is passed on.

An affinity is a matrix (B, N, N) between the N cells of a grid, row by row, whose rows sum to 1. Three forms:

* ``mean``: attention of a plain ViT, averaged over heads and blocks (``affinity``).
* ``caa``: that of CLIP-ES (Lin et al. 2023, arXiv 2212.09506): the same attention made doubly stochastic by Sinkhorn's
  iteration, then symmetric. There it is squared and used once, which is the same as using it twice.
* ``features``: likeness of the last features, for CNNs too. [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pseudolabel.models.affinity import patch_affinity, propagate
from pseudolabel.models.backbone import Backbone
from pseudolabel.runtime.resizing import resize

Form = Literal["mean", "caa", "features"]
ROUNDS = 3
"""Of Sinkhorn's iteration in CLIP-ES."""
WARMTH = 0.1
"""Temperature of the softmax over cosines; cells that are opposite weigh e^-20 of those that are equal. [ours]"""


@dataclass(frozen=True)
class Propagation:
    """What is to be passed on, and along what.

    Attributes:
        times: How often; 0 is not at all.
        form: Of the affinity.
        blocks: Whose attention is read, from 0; of plain ViTs.
        scales: Of the image, at each of which maps are passed on; the mean of the results is what counts.
        boxes: What lies outside of boxes around the parts of a map above this share of its maximum stays behind; None:
            all is passed on.
    """

    times: int
    form: Form = "mean"
    blocks: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    boxes: float | None = None


def pass_on(maps: Tensor, along: Sequence[tuple[tuple[int, int], Tensor]], how: Propagation) -> Tensor:
    """Maps propagated along affinities of one or more scales.

    Args:
        maps: float (B, C, h, w), non-negative, on the grid of scale 1.
        along: Grid and affinity of each scale.
        how: How often, and whether within boxes.

    Returns:
        float32 (B, C, h, w): the mean over the scales.
    """
    kept = maps.float() if how.boxes is None else maps.float() * class_boxes(maps, how.boxes)
    grid = (maps.shape[2], maps.shape[3])
    found = [resize(propagate(resize(kept, own), affinity, how.times), grid) for own, affinity in along]
    return torch.stack(found).mean(dim=0)


def affinity_of(backbone: Backbone, images: Tensor, how: Propagation, *, flip: bool) -> Tensor:
    """The affinity of images in a pass of their own.

    Args:
        backbone: The feature extractor; for ``mean`` and ``caa`` a plain ViT.
        images: Normalised (B, 3, H, W).
        how: Its form and blocks.
        flip: Also read the attention of the mirrored images, and take the mean.

    Returns:
        float32 (B, N, N), on the grid of the backbone's last map.
    """
    if how.form == "features":
        return feature_affinity(backbone(images)[0])
    return shaped(patch_affinity(backbone, images, flip=flip, blocks=how.blocks or None), how.form)


def shaped(attention: Tensor, form: Form) -> Tensor:
    """A form's affinity from mean attention, both float32 (B, N, N)."""
    return doubly_stochastic(attention) if form == "caa" else attention


def doubly_stochastic(affinity: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Sinkhorn's iteration and the mean with the transpose, as CLIP-ES makes its affinity.

    Args:
        affinity: float32 (B, N, N), positive.
        rounds: How often columns and then rows are normalised.

    Returns:
        float32 (B, N, N), symmetric; rows and columns sum to nearly 1.
    """
    for _ in range(rounds):
        affinity = affinity / affinity.sum(dim=1, keepdim=True)
        affinity = affinity / affinity.sum(dim=2, keepdim=True)
    return (affinity + affinity.mT) / 2


def feature_affinity(features: Tensor) -> Tensor:
    """The softmax over cells of the cosine between features, over a temperature of 0.1. [ours]

    Args:
        features: float (B, D, h, w).

    Returns:
        float32 (B, h w, h w), rows summing to 1.
    """
    with torch.autocast(features.device.type, enabled=False):
        cells = torch.nn.functional.normalize(features.float().flatten(2), dim=1)
        return (cells.mT @ cells / WARMTH).softmax(dim=2)


def class_boxes(maps: Tensor, share: float) -> Tensor:
    """Which cells lie in the bounding box of a connected part of a map, as CLIP-ES bounds what it passes on.

    Args:
        maps: float (B, C, h, w), non-negative.
        share: Parts are where a map is above this share of its maximum; cells that touch at corners are connected.

    Returns:
        float32 (B, C, h, w), 1 inside and 0 outside; all 0 for a map of zeros.
    """
    above = (maps > share * maps.amax(dim=(2, 3), keepdim=True)).cpu().numpy()
    inside = np.zeros(above.shape, dtype=np.float32)
    for image in np.ndindex(above.shape[:2]):
        parts, _ = ndimage.label(above[image], structure=np.ones((3, 3)))
        for box in ndimage.find_objects(parts):
            inside[image][box] = 1
    return torch.from_numpy(inside).to(maps.device)
