"""One step of co-training, as functions of tensors: what the teacher assigns, and what the student loses.

For the parts of an effective batch, micro batches here or on other processes:

1. ``assign`` what the teacher saw in each part (``teacher.teacher_forward``);
2. add up ``totals`` over the parts, and ``thresholds.count_scores`` for the next step's thresholds;
3. ``student_losses`` of each part, whose gradients sum to those of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pseudolabel.cosa.assignments import (
    CamLabels,
    cam_labels,
    cells_inside,
    guided_cams,
    released_cam_labels,
    segmentation_labels,
)
from pseudolabel.cosa.losses import (
    c2s_loss,
    classification_loss,
    confident_labels,
    contrastive_loss,
    dense_energy,
    perplexity,
    region_sums,
    region_weights,
    s2c_loss,
)
from pseudolabel.cosa.teacher import Seen
from pseudolabel.models.cosa import CosaOutput
from pseudolabel.pairwise.loss_modules import GatedDenseEnergy
from pseudolabel.runtime.resizing import resize

_RULES = {"described": cam_labels, "released": released_cam_labels}


@dataclass(frozen=True)
class Method:
    """What is switched on, and how strong it is; None is off. The defaults are the method as its paper describes it.

    As released: ``rule`` released, ``perplexity`` None, ``contrastive`` None.

    Attributes:
        rule: Of the CAM labels.
        temperature: tau of the segmentation labels.
        auxiliary_thresholds: Low and high of the auxiliary CAM's labels; None: those of the main one's.
        perplexity: la of the soft weights, in (0, 1).
        perplexity_power: lb.
        c2s: Weight of CAM to segmentation.
        balanced: Background and foreground weigh the same in it; else each pixel does.
        auxiliary_share: alpha, share of the auxiliary CAM's labels in it.
        s2c: Weight of segmentation to CAM.
        regulariser: Weight of the gated dense energy, on top of its own.
        contrastive: Weight of the contrastive separation.
        contrastive_temperature: T.
        contrastive_cells: K, cells chosen from an image.
        contrastive_perplexity: Cells above it are not chosen.
    """

    rule: Literal["described", "released"] = "described"
    temperature: float = 0.01
    auxiliary_thresholds: tuple[float, float] | None = None
    perplexity: float | None = 0.8
    perplexity_power: float = 1.0
    c2s: float | None = 0.1
    balanced: bool = True
    auxiliary_share: float = 0.5
    s2c: float | None = 0.05
    regulariser: float | None = 0.05
    contrastive: float | None = 0.1
    contrastive_temperature: float = 0.5
    contrastive_cells: int = 64
    contrastive_perplexity: float = 1.0


class Assigned(NamedTuple):
    """What the teacher says about a part of a batch. Nothing in it carries a gradient.

    Attributes:
        cams: float32 (B, C, h, w) in [0, 1], the main head's M' on the network's grid.
        main: Labels and scores of the main CAM, (B, H, W).
        auxiliary: Those of the auxiliary CAM.
        confidence: 1 / perplexity of each, float32 (B, H, W); None where all pixels count alike.
        targets: float32 (B, K, h, w), the segmentation labels.
        contrast: uint8 (B, h, w), what the contrastive term may choose from.
        inside: bool (B, H, W), False where a pixel is padding; None: there is none.
        cells: bool (B, h, w), False where a cell is padding.
    """

    cams: Tensor
    main: CamLabels
    auxiliary: CamLabels
    confidence: tuple[Tensor | None, Tensor | None]
    targets: Tensor
    contrast: Tensor
    inside: Tensor | None
    cells: Tensor


@torch.no_grad()
def assign(
    seen: Seen,
    tags: Tensor,
    method: Method,
    *,
    low: float,
    high: float,
    size: tuple[int, int],
    inside: Tensor | None = None,
) -> Assigned:
    """Pseudo labels of both kinds from what the teacher saw.

    Args:
        seen: Of ``teacher.teacher_forward``.
        tags: float (B, C), 1 where a class occurs.
        method: The settings.
        low: Threshold of the main CAM's labels, and of the auxiliary one's unless the method has others.
        high: Likewise, at least ``low``.
        size: H and W of the views, multiples of the grid's h and w.
        inside: bool (B, H, W), False where a pixel is padding; None: there is none.
    """
    shape = (len(tags), *seen.grid)
    cells = (
        torch.ones(shape, dtype=torch.bool, device=tags.device) if inside is None else cells_inside(inside, seen.grid)
    )
    whole = inside if seen.maps.shape[2:] != seen.grid else cells
    cams, earlier = (guided_cams(sums, tags, whole) for sums in (seen.maps, seen.auxiliary))
    rule = _RULES[method.rule]
    pairs = ((low, high), method.auxiliary_thresholds or (low, high))
    main, auxiliary = (
        rule(maps, tags, size, low=under, high=over, inside=inside)
        for maps, (under, over) in zip((cams, earlier), pairs, strict=True)
    )
    middles = [sum(pair) / 2 for pair in pairs]
    confidence: tuple[Tensor | None, Tensor | None] = (None, None)
    if method.perplexity is not None:
        strength, power = method.perplexity, method.perplexity_power
        confidence = (
            1 / perplexity(main.score, middles[0], strength=strength, power=power),
            1 / perplexity(auxiliary.score, middles[1], strength=strength, power=power),
        )
    coarse = cam_labels(earlier, tags, seen.grid, low=pairs[1][0], high=pairs[1][1], inside=cells)
    contrast = confident_labels(coarse.labels, perplexity(coarse.score, middles[1]), method.contrastive_perplexity)
    targets = segmentation_labels(seen.segmentation, tags, temperature=method.temperature)
    return Assigned(
        resize(cams, seen.grid), main, auxiliary, confidence, resize(targets, seen.grid), contrast, inside, cells
    )


def totals(assigned: Assigned) -> Tensor:
    """What the losses divide by, to be added up over the parts of a batch.

    Returns:
        (9,), of ``wide_dtype``: ``region_sums`` of the main labels, of the auxiliary labels, and the cells inside.
    """
    pairs = zip((assigned.main, assigned.auxiliary), assigned.confidence, strict=True)
    regions = [region_sums(found.labels, confidence) for found, confidence in pairs]
    return torch.cat([*(sums.flatten() for sums in regions), assigned.cells.sum(dtype=regions[0].dtype)[None]])


def student_losses(
    output: CosaOutput,
    assigned: Assigned,
    method: Method,
    *,
    total: Tensor,
    images: int,
    photographs: Tensor,
    noise: Tensor,
    energy: GatedDenseEnergy,
) -> dict[str, Tensor]:
    """A part's share of each swapped loss, by name and without its weight; ``loss`` is their weighted sum.

    Args:
        output: The student's, of the strong views.
        assigned: Of the weak views of the same part.
        method: The settings.
        total: ``totals`` of the whole batch.
        images: Of the whole batch.
        photographs: uint8 (B, 3, H, W), the strong views before they were normalised.
        noise: float (B, h, w), random, drawn for each image.
        energy: The regulariser.
    """
    labels = (assigned.main.labels, assigned.auxiliary.labels)
    losses: dict[str, Tensor] = {}
    if method.c2s is not None:
        sums = (total[:4].view(2, 2), total[4:8].view(2, 2))
        parts = zip(labels, assigned.confidence, sums, strict=True)
        weights = [
            region_weights(found, confidence, totals=own, even=method.balanced) for found, confidence, own in parts
        ]
        shares = (1 - method.auxiliary_share, method.auxiliary_share)
        losses["c2s"] = c2s_loss(output.segmentation, *zip(labels, weights, strict=True), shares=shares)
    if method.s2c is not None:
        losses["s2c"] = s2c_loss(output.maps, assigned.targets, inside=assigned.cells, cells=total[8])
    if method.regulariser is not None:
        losses["regulariser"] = dense_energy(
            energy, photographs, output.segmentation, labels[0], inside=assigned.inside, images=images
        )
    if method.contrastive is not None:
        assert output.embedding is not None  # a network for this method projects
        losses["contrastive"] = contrastive_loss(
            output.embedding,
            assigned.contrast,
            noise,
            most=method.contrastive_cells,
            temperature=method.contrastive_temperature,
            images=images,
        )
    weighted = [getattr(method, name) * loss.float() for name, loss in losses.items()]
    return {"loss": torch.stack(weighted).sum() if weighted else output.maps.sum() * 0, **losses}


def classification_losses(main: Tensor, auxiliary: Tensor, tags: Tensor, *, images: int) -> dict[str, Tensor]:
    """A part's share of both heads' multi-label soft margins, and their sum: all there is to a warm-up step.

    Args:
        main: float (B, C), the main head's logits.
        auxiliary: float (B, C), the auxiliary head's.
        tags: float (B, C), 1 where a class occurs.
        images: Of the whole batch.
    """
    losses = {
        "main": classification_loss(main, tags, images=images),
        "auxiliary": classification_loss(auxiliary, tags, images=images),
    }
    return {"loss": losses["main"] + losses["auxiliary"], **losses}
