"""Votes of regions on labels: SEPL, FMA's scored paste, soft assignment, and the region that fits a box.

Sources: SEPL, *Segment anything model enhanced pseudo labels* (Chen et al. 2023; SAM_WSSS); FMA, *Foundation model
assisted weakly supervised segmentation* (Yang and Gong, WACV 2024; FMA-WSSS); CSL, *Class-agnostic
structure-constrained learning* (AAAI 2024, without released code). ``docs/regions.md`` says where these functions
deviate. None depends on the order of the regions, but for the box rule among regions that are alike in all that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pseudolabel.artefacts.run_lengths import NO_CLASS, Regions, make_regions, mask_runs
from pseudolabel.data.records import IGNORE
from pseudolabel.data.shapes import Box, cells


def vote_sepl(labels: np.ndarray, regions: Regions, *, share: float = 0.5, coverage: float = 0.85) -> np.ndarray:
    """SEPL's rule with FMA's correction: regions take the class that fills them, or that they cover.

    A region S is assigned to class c, of pixels C, if |S & C| >= share |S| or |S & C| >= coverage |C|; of several such
    classes to the one with the largest |S & C|, the lowest index among equals. A class becomes the union of its regions
    and its pixels outside of all regions; what is left of it is background. Smaller regions lie over larger ones.
    Unlabelled pixels count for no class, and stay unlabelled outside of assigned regions.

    Args:
        labels: uint8 (H, W), 255 = unlabelled.
        regions: Of the image.
        share: In [0, 1].
        coverage: In [0, 1].

    Returns:
        uint8 (H, W), 255 = unlabelled.
    """
    classes = np.setdiff1d(labels, [0, IGNORE])
    dropped = regions.covered() & (labels != IGNORE)
    canvas = np.where(dropped, 0, labels).astype(np.uint8)
    if not len(classes) or not len(regions):
        return canvas
    where = labels == classes[:, None, None]
    common = regions.sums(where)
    fits = (common >= share * regions.area[:, None]) | (common >= coverage * where.sum(axis=(1, 2)))
    fits &= common > 0
    found = classes[np.where(fits, common, -1).argmax(axis=1)]
    chosen = np.flatnonzero(fits.any(axis=1))
    order = chosen[np.lexsort((-found[chosen].astype(int), -regions.area[chosen]))]
    return regions.painted(canvas, order, found[order])


def vote_fma(
    labels: np.ndarray, classes: np.ndarray, maps: np.ndarray, regions: Regions, *, power: float
) -> np.ndarray:
    """FMA's scored paste: each region takes its best class by mean map, and confident regions lie on top.

    v = mean of each map over the labelled pixels of the region, scaled so that over the regions of an image a class
    goes from 0 to 1; background = (1 - max v) ** power; label = argmax, background among equals; regions are painted in
    ascending order of the maximum. Pixels of no region are background, or unlabelled if they were.

    Args:
        labels: uint8 (H, W), 255 = unlabelled; the others play no part.
        classes: int (P,), class index of each map, from 1.
        maps: float (P, H, W), at least 0.
        regions: Of the image.
        power: Exponent of the background.

    Returns:
        uint8 (H, W), 255 = unlabelled.
    """
    canvas = np.where(labels == IGNORE, IGNORE, 0).astype(np.uint8)
    labelled = labels != IGNORE
    count = regions.sums(labelled[None])[:, 0]
    voting = np.flatnonzero(count)
    if not len(voting):
        return canvas
    mean = regions.sums(maps * labelled)[voting] / count[voting, None]
    low, width = mean.min(axis=0), np.ptp(mean, axis=0)
    # Where all regions score alike, as a single one does, the released scaling makes 0 of any score; here it stays.
    score = np.where(width > 0, (mean - low) / np.where(width > 0, width, 1), mean)
    background = (1 - np.clip(score.max(axis=1, initial=0), 0, 1)) ** power
    scores = np.concatenate([background[:, None], score], axis=1)
    found = np.concatenate([[0], classes])[scores.argmax(axis=1)].astype(np.uint8)
    order = np.lexsort((-found.astype(int), -regions.area[voting], scores.max(axis=1)))
    return regions.painted(canvas, voting[order], found[order])


def vote_soft(
    shares: np.ndarray, unlabelled: np.ndarray | None, regions: Regions
) -> tuple[np.ndarray, np.ndarray | None]:
    """Soft assignment: a region's probabilities are its pixels' mean, a pixel's those of its regions.

    P_r = mean of P(p) over the labelled pixels p of r; Q(p) = mean of P_r over the regions r of p that have any; where
    there is none, P(p). A pixel with such a region becomes labelled.

    Args:
        shares: float32 (K, H, W), summing to 1 at every pixel.
        unlabelled: bool (H, W), or None.
        regions: Of the image.

    Returns:
        float32 (K, H, W), summing to 1; bool (H, W), or None.
    """
    if not len(regions):
        return shares, unlabelled
    weight = np.ones(regions.size) if unlabelled is None else 1.0 - unlabelled
    count = regions.sums(weight[None])
    votes = count[:, 0] > 0
    mean = np.where(votes[:, None], regions.sums(shares * weight) / np.maximum(count, 1), 0)
    total = regions.spread(np.concatenate([votes[:, None], mean], axis=1))
    covered = total[0] > 0.5
    found = np.where(covered, total[1:] / np.maximum(total[0], 1), shares)
    found = np.clip(found, 0, 1)
    found /= found.sum(axis=0)
    return found.astype(np.float32), None if unlabelled is None else unlabelled & ~covered


def split_regions(regions: Regions, labels: np.ndarray, share: float) -> Regions:
    """Regions cut where they fall apart or where labels disagree.

    Each connected part (8 neighbours) becomes a region. Of a part, the pixels of each class that is not its most
    frequent one (the lowest index among equals) and has at least ``share`` of it become a region of their own; the rest
    stays together. Parts keep score, class, box and prompt of their region.

    Args:
        regions: Of the image.
        labels: uint8 (H, W), 255 = unlabelled, which is no class.
        share: In (0, 1].
    """
    runs: list[np.ndarray] = []
    origin: list[int] = []
    for region, mask in enumerate(regions.masks()):
        parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for part in range(1, count + 1):
            rest = parts == part
            area = rest.sum()
            found = np.bincount(labels[rest], minlength=256)[:IGNORE]
            for label in np.flatnonzero(found >= share * area):
                if label != found.argmax() and found[label]:
                    own = rest & (labels == label)
                    runs.append(mask_runs(own))
                    origin.append(region)
                    rest &= ~own
            runs.append(mask_runs(rest))
            origin.append(region)
    cut = make_regions(regions.size, runs)
    return Regions(
        regions.size,
        cut.runs,
        cut.offset,
        regions.score[origin],
        regions.label[origin],
        regions.box[origin],
        tuple(regions.prompt[region] for region in origin),
    )


def vote_boxes(labels: np.ndarray, regions: Regions, boxes: Sequence[Box], *, inside: float = 0.9) -> np.ndarray:
    """Each box takes the region that fits it best.

    Candidates are regions of which at least ``inside`` lies in the box, or, where they were prompted with a box, whose
    prompt has at least that IoU with it; a region with a class is for boxes of that class only. Of them the one whose
    bounds, or whose prompt, has the largest IoU with the box is taken; among equals that of the higher score, the
    larger one, the first one. Regions of smaller boxes lie over those of larger ones. Within a box that has a region
    everything else is unlabelled; within one that has none the labels stay. A class with boxes is nowhere else.

    Args:
        labels: uint8 (H, W), 255 = unlabelled.
        regions: Of the image.
        boxes: In whole pixels, inside the image.
        inside: In [0, 1].

    Returns:
        uint8 (H, W), 255 = unlabelled.
    """
    within = np.zeros((len(boxes), *labels.shape), dtype=bool)
    for area, box in zip(within, boxes, strict=True):
        area[cells(box)] = True
    canvas = labels.copy()
    for label in {box.label for box in boxes}:
        own = within[[box.label == label for box in boxes]].any(axis=0)
        canvas[(labels == label) & ~own] = 0
    share = regions.sums(within) / np.maximum(regions.area, 1)[:, None]
    taken: list[tuple[int, int]] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-int(within[index].sum()), -boxes[index].label)):
        region = _best_region(regions, boxes[index], share[:, index], inside)
        if region is not None:
            canvas[within[index]] = IGNORE
            taken.append((region, boxes[index].label))
    found = np.asarray(taken, dtype=int).reshape(-1, 2)
    return regions.painted(canvas, found[:, 0], found[:, 1].astype(np.uint8))


def _best_region(regions: Regions, box: Box, share: np.ndarray, inside: float) -> int | None:
    """The region that a box takes, if any is a candidate."""
    prompted = np.isfinite(regions.box).all(axis=1)
    bounds = np.where(prompted[:, None], regions.box, regions.bounds)
    iou = _iou(bounds, np.array([box.left, box.top, box.right, box.bottom]))
    fits = np.where(prompted, iou >= inside, share >= inside)
    fits &= (regions.label == NO_CLASS) | (regions.label == box.label)
    candidates = np.flatnonzero(fits)
    if not len(candidates):
        return None
    score = np.nan_to_num(regions.score[candidates], nan=-1)
    best = np.lexsort((candidates, -regions.area[candidates], -score, -iou[candidates]))[0]
    return int(candidates[best])


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (R, 4) with one: float64 (R,)."""
    sides = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None)
    common = sides.prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(common / (areas - common))
