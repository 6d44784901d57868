"""CoSA's losses, each a share of the whole batch's loss, so that shares add up over micro batches and processes.

A mean over the foreground pixels of a batch is not the mean of the means over its parts. But everything that these
losses divide by follows from the teacher and the tags alone. So a step first lets the teacher look at all its micro
batches, adds up what is divided by (``region_sums``, cells, images; over processes by one all-reduce), and hands those
totals to the losses of each part. The losses of the parts then sum to the loss of the whole, and so do their gradients:
they are to be summed over processes, not averaged. Without totals a part is the whole batch.

Every loss is finite for every batch. Where nothing is to be learnt (no pixel of a region, no class, no pair) it is zero
with a zero gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.pairwise.loss_modules import GatedDenseEnergy
from pseudolabel.runtime.devices import wide_dtype
from pseudolabel.runtime.resizing import resize


def classification_loss(logits: Tensor, tags: Tensor, *, images: int | None = None) -> Tensor:
    """Multi-label soft margin of pooled logits. [code: tag-loss]

    Args:
        logits: float (B, C).
        tags: float (B, C), 1 where a class occurs.
        images: Of the whole batch; None: these.

    Returns:
        A scalar: the sum over images of the mean over classes, over ``images``.
    """
    logits = _at_least_float32(logits)
    loss = F.multilabel_soft_margin_loss(logits, tags.to(logits), reduction="sum")
    return loss / (images or max(1, len(logits)))


def perplexity(
    score: Tensor, threshold: float, *, strength: float = 0.8, power: float = 1.0, least: float = 1e-3
) -> Tensor:
    """How unsure a CAM score is of its side of the threshold. [paper: the idea] [ours: constants]

    P = [-log(la (nu - xi) / (1 - xi))]^lb where nu >= xi, [-log(la (xi - nu) / xi)]^lb elsewhere.

    Args:
        score: float, any shape, nu in [0, 1], without gradient.
        threshold: xi in [0, 1]; of two thresholds the middle.
        strength: la in (0, 1).
        power: lb > 0.
        least: Bounds of the logarithm's argument: [least, 1 - least].

    Returns:
        Like ``score``, positive: from (-log la)^lb at 0 and 1 to (-log least)^lb at the threshold.
    """
    side = torch.where(score >= threshold, 1 - threshold, threshold).clamp(min=least)  # no side is empty
    sureness = (strength * (score - threshold).abs() / side).clamp(least, 1 - least)
    return (-sureness.log()) ** power


def region_sums(labels: Tensor, confidence: Tensor | None = None) -> Tensor:
    """What ``region_weights`` divides by: confidence, and number, of all background and of all foreground pixels.

    Args:
        labels: uint8 (B, H, W), 255 = ignore.
        confidence: float (B, H, W), 1 / perplexity; None: every pixel counts as 1.

    Returns:
        (2, 2) of ``wide_dtype``, the confidences and the numbers of each region; sums of parts add up.
    """
    ones = torch.ones_like(labels, dtype=torch.float32)
    weights = (ones if confidence is None else confidence, ones)
    wide = wide_dtype(labels.device)
    sums = [(each * region).sum(dtype=wide) for each in weights for region in _regions(labels)]
    return torch.stack(sums).view(2, 2)


def region_weights(
    labels: Tensor, confidence: Tensor | None = None, *, totals: Tensor | None = None, even: bool = True
) -> Tensor:
    """Weights whose sum with pixel losses is 1/2 mean over background + 1/2 mean over foreground.

    [code: balanced-cross-entropy] With a confidence each mean is a weighted one: w(p) = |R| P(p)^-1 / sum_R P^-1 has
    mean 1 on each region R, so that the mean of w CE over R is sum_R P^-1 CE / sum_R P^-1. [paper: the idea] [ours: the
    form]

    Args:
        labels: uint8 (B, H, W), 255 = ignore.
        confidence: float (B, H, W), 1 / perplexity; None: every pixel counts as 1.
        totals: ``region_sums`` of the whole batch; None: of these.
        even: Both regions weigh 1/2; else each as many pixels as it has, which is the mean of w CE over all labelled
            pixels. [ours: the choice]

    Returns:
        float32 (B, H, W), non-negative: summing to the weight of each region over the whole batch, 0 on ignored pixels.
    """
    totals = region_sums(labels, confidence) if totals is None else totals
    confidences, pixels = totals
    shares = torch.full_like(pixels, 0.5) if even else pixels / pixels.sum().clamp(min=1)
    scale = torch.where(confidences > 0, shares / confidences, 0.0).float()
    background, foreground = _regions(labels)
    weights = background * scale[0] + foreground * scale[1]
    return weights if confidence is None else weights * confidence


def c2s_loss(logits: Tensor, *assignments: tuple[Tensor, Tensor], shares: Sequence[float] | None = None) -> Tensor:
    """CAM to segmentation: cross entropy of S against each CPL, averaged over them (alpha = 0.5 for two).

    [code: balanced-cross-entropy]

    Args:
        logits: float (B, K, h, w), enlarged bilinearly to the labels' size if they are smaller.
        *assignments: Labels uint8 (B, H, W), 255 = ignore, and weights float (B, H, W) of ``region_weights``: those
            from the main CAM and those from the auxiliary one.
        shares: Of each assignment in the average, summing to 1; None: equal ones.

    Returns:
        A scalar.
    """
    log_shares = resized(logits, assignments[0][0].shape[1:]).log_softmax(dim=1)
    shares = [1 / len(assignments)] * len(assignments) if shares is None else shares
    losses = [
        share * (F.nll_loss(log_shares, labels.long(), ignore_index=IGNORE, reduction="none") * weights).sum()
        for share, (labels, weights) in zip(shares, assignments, strict=True)
        if share
    ]
    return torch.stack(losses).sum()


def s2c_loss(
    maps: Tensor, targets: Tensor, *, inside: Tensor | None = None, cells: int | Tensor | None = None
) -> Tensor:
    """Segmentation to CAM: multi-label soft margin between relu(M) and SPL's foreground, mean over classes and cells.

    [code: segmentation-to-cam]; that cells of padding are left out is ours.

    Args:
        maps: float (B, C, h, w), the student's unnormalised CAM.
        targets: float (B, K, h', w'), SPL; resized bilinearly to the CAM's grid where it has another.
        inside: bool (B, h, w), False where a cell is padding; None: there is none.
        cells: How many are inside in the whole batch; None: in this one.

    Returns:
        A scalar.
    """
    maps = _at_least_float32(maps)
    wanted = resized(targets[:, 1:].to(maps), maps.shape[2:])
    each = F.binary_cross_entropy_with_logits(maps.relu(), wanted, reduction="none").mean(dim=1)
    counted = torch.ones_like(each, dtype=torch.bool) if inside is None else inside
    total = counted.sum() if cells is None else cells
    return (each * counted).sum() / torch.as_tensor(total, device=each.device).clamp(min=1)


def sample_cells(labels: Tensor, noise: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Choose cells for the contrastive term at random, in turn from every label that an image has. [ours]

    Args:
        labels: uint8 (B, h, w), 255 = not to be chosen.
        noise: float (B, h, w), random and without ties: its lowest cells of a label come first. Noise that belongs to
            an image, not to its place in a batch, makes the choice independent of how a batch is cut up.
        most: K, cells to choose from an image.

    Returns:
        Indices int64 (B, min(K, h w)) into the h w cells; their labels uint8 of the same shape, 255 where there was
        nothing more to choose.
    """
    flat = labels.flatten(1)
    order = noise.flatten(1).argsort(dim=1)
    shuffled = flat.gather(1, order)
    grouped, by_label = shuffled.sort(dim=1, stable=True)  # cells of a label in a row, in the order of their noise
    place = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    first = torch.searchsorted(grouped, grouped, side="left")
    turn = (place - first).masked_fill(grouped == IGNORE, flat.shape[1])
    chosen = turn.argsort(dim=1, stable=True)[:, :most]
    return order.gather(1, by_label.gather(1, chosen)), grouped.gather(1, chosen)


def contrastive_loss(
    embedding: Tensor, labels: Tensor, noise: Tensor, *, most: int, temperature: float = 0.5, images: int | None = None
) -> Tensor:
    """Separate what occurs together: InfoNCE between cells of one image. [paper: the idea] [ours: form]

    For an anchor i of a class, its positives j of the same class and negatives n of another class or background:

        l_i = mean_j -log( exp(v_i.v_j / T) / (exp(v_i.v_j / T) + sum_n exp(v_i.v_n / T)) )

    averaged over the image's anchors that have both, then over images. Only cells of one image are compared: what
    confuses is in the same image, and the loss of a batch is the sum of its images'.

    Args:
        embedding: float (B, D, h, w), of length 1 at every cell.
        labels: uint8 (B, h, w): the auxiliary CPL at the grid, 255 also where perplexity is too high.
        noise: float (B, h, w), of ``sample_cells``.
        most: K, cells chosen from an image.
        temperature: T.
        images: Of the whole batch; None: these.

    Returns:
        A scalar.
    """
    cells, label = sample_cells(labels, noise, most)
    features = _at_least_float32(embedding).flatten(2)
    chosen = features.gather(2, cells[:, None].expand(-1, features.shape[1], -1))
    with torch.autocast(chosen.device.type, enabled=False):  # or bfloat16 would blur what is alike
        similar = chosen.transpose(1, 2) @ chosen / temperature  # (B, K, K)
    known = label != IGNORE
    pair = known[:, :, None] & known[:, None]
    same = label[:, :, None] == label[:, None]
    itself = torch.eye(label.shape[1], dtype=torch.bool, device=label.device)
    positive, negative = pair & same & ~itself, pair & ~same
    anchor = (label > 0) & known & positive.any(dim=2) & negative.any(dim=2)
    others = similar.masked_fill(~negative, -1e4).logsumexp(dim=2, keepdim=True)  # finite where there is no negative
    each = (torch.logaddexp(similar, others) - similar) * (positive & anchor[:, :, None])
    by_anchor = each.sum(dim=2) / positive.sum(dim=2).clamp(min=1)
    by_image = by_anchor.sum(dim=1) / anchor.sum(dim=1).clamp(min=1)
    return by_image.sum() / (images or max(1, len(labels)))


def confident_labels(labels: Tensor, unsureness: Tensor, most: float = 1.0) -> Tensor:
    """Labels of pixels whose perplexity is at most ``most``, 255 elsewhere: what the contrastive term may choose from.

    Args:
        labels: uint8 (B, h, w), 255 = ignore.
        unsureness: float (B, h, w), of ``perplexity``.
        most: 1, with xi = 0.5, keeps scores below 0.27 and above 0.73. [ours]

    Returns:
        uint8 (B, h, w).
    """
    return labels.masked_fill(unsureness > most, IGNORE)


def dense_energy(
    energy: GatedDenseEnergy,
    photographs: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    inside: Tensor | None = None,
    images: int | None = None,
) -> Tensor:
    """The gated dense energy of softmax(S): labels that are sure feel nothing, unlabelled pixels follow edges.

    [code: gated-energy] The released setting is ``GatedDenseEnergy()``: weight 1e-7, widths 100 pixels and 15 grey
    levels, maps at half the photograph's size.

    Args:
        energy: With its weight and kernel.
        photographs: uint8 or float (B, 3, H, W), RGB in 0-255, as the student saw them but not normalised.
        logits: float (B, K, h, w), enlarged bilinearly to the photographs' size if they are smaller.
        labels: uint8 (B, H, W), the main CPL; 255 = unlabelled or padding.
        inside: bool (B, H, W), False where a pixel is padding; None: there is none.
        images: Of the whole batch; None: these.

    Returns:
        A scalar, negative or zero.
    """
    shares = resized(logits, photographs.shape[2:]).softmax(dim=1)
    mean: Tensor = energy(photographs, shares, labels == IGNORE, inside)
    return mean if images is None else mean * (len(labels) / images)


def _regions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Background and foreground: bool, each like the labels."""
    return labels == 0, (labels != 0) & (labels != IGNORE)


def resized(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps (B, K, h, w), in float32 or more, resized bilinearly where they have another size."""
    maps = _at_least_float32(maps)
    return resize(maps, size)


def _at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
