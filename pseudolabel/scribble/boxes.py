"""Where classes may be: boxes and tags as sets of allowed classes, and label maps from boxes that CAMs fill.

A box is the upper bound of an object's extent. [def] What is allowed is the intersection of what boxes and tags say;
``exclusion_loss`` teaches it, ``bounded`` enforces it on a prediction, and ``pseudolabel.labels.box_constraints`` on
stored maps. Points need nothing of their own: as discs of some pixels they are small scribbles
(``pseudolabel.data.load_weak_labels`` draws them with its ``width``), and ``objectness`` says where the rest of
their objects is likely.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.data.shapes import Box, cells


def tags_allow(tags: Tensor) -> Tensor:
    """Background and the tagged classes, everywhere.

    Args:
        tags: float or bool (B, C), above 0 where a class occurs.

    Returns:
        bool (B, K, 1, 1).
    """
    return F.pad(tags > 0, (1, 0), value=True)[:, :, None, None]


def boxes_allow(
    boxes: Sequence[Box], classes: int, size: tuple[int, int], grid: tuple[int, int] | None = None
) -> Tensor:
    """Background everywhere, and each class inside its boxes.

    Args:
        boxes: Of one image, or of a view of it, whose border may cut them.
        classes: C, object classes.
        size: H and W, pixels in which the boxes count.
        grid: h and w; a cell that a box touches is inside. None: those of ``size``.

    Returns:
        bool (K, h, w).
    """
    height, width = grid or size
    down, right = height / size[0], width / size[1]
    allowed = torch.zeros(classes + 1, height, width, dtype=torch.bool)
    allowed[0] = True
    for box in boxes:
        allowed[box.label, *cells(box, down, right)] = True
    return allowed


def boxes_in_crop(
    boxes: Sequence[Box], view: tuple[float, float, float, float], side: int, *, mirrored: bool
) -> list[Box]:
    """Boxes in the pixels of a square training view; those that it does not see are left out.

    Args:
        boxes: In pixels of the image.
        view: Left, top, right and bottom edge of the part of the image that the view shows.
        side: Of the view, pixels.
        mirrored: Whether left and right of the part are exchanged.
    """
    left, top, right, bottom = view
    across, down = side / (right - left), side / (bottom - top)
    found = []
    for box in boxes:
        x0, x1 = max(0.0, (box.left - left) * across), min(float(side), (box.right - left) * across)
        y0, y1 = max(0.0, (box.top - top) * down), min(float(side), (box.bottom - top) * down)
        if x0 < x1 and y0 < y1:
            x0, x1 = (side - x1, side - x0) if mirrored else (x0, x1)
            found.append(box._replace(left=x0, top=y0, right=x1, bottom=y1))
    return found


def bounded(shares: Tensor, allowed: Tensor) -> Tensor:
    """A prediction without the classes that are not allowed, the others in their proportions.

    Args:
        shares: float (B, K, h, w), summing to 1 over K.
        allowed: bool (B, K, h, w) or (B, K, 1, 1).

    Returns:
        Like ``shares``, summing to 1; background alone where nothing of what is allowed has a share.
    """
    left = shares * allowed
    total = left.sum(dim=1, keepdim=True)
    nothing = F.one_hot(torch.zeros_like(total[:, 0], dtype=torch.long), shares.shape[1]).movedim(3, 1).to(left)
    return torch.where(total > 0, left / torch.where(total > 0, total, 1), nothing)


def fill_boxes(cams: Tensor, boxes: Sequence[Box], *, low: float, high: float) -> Tensor:
    """Label what is inside boxes by CAMs and all else as background. [ours: the rule]

    A box's scores are its class's CAM inside the box over its maximum there, so that every object is filled, not only
    the most striking one of its class. A pixel's score is the largest of the boxes around it, and of equal scores the
    smallest box's.

    Args:
        cams: float (C, H, W), not negative, one map a class, at the size of the image.
        boxes: Of the image, edges inside it.
        low: Below it a pixel inside a box is background.
        high: At or above it a pixel is of the box's class.

    Returns:
        uint8 (H, W): the class where the score reaches ``high``, 255 where it reaches only ``low``, else 0: outside of
        all boxes for sure. Where a CAM is zero throughout its box it says nothing: 255, unless another box scores.
    """
    best = torch.full_like(cams[0], -1.0)
    labels = torch.zeros_like(cams[0], dtype=torch.uint8)
    for box in sorted(boxes, key=_area, reverse=True):
        place = cells(box)
        inside = cams[box.label - 1, *place]
        if not inside.numel():
            continue
        most = float(inside.max())
        score = inside / most if most > 0 else torch.full_like(inside, low)
        sure = (score >= high) & (most > 0)
        found = torch.where(sure, box.label, torch.where(score < low, 0, IGNORE)).to(torch.uint8)
        wins = score >= best[place]
        labels[place] = torch.where(wins, found, labels[place])
        best[place] = torch.where(wins, score, best[place])
    return labels


def outside_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """Label what no box touches as background: uint8 (H, W), 0 there and 255 inside of boxes. [def]

    Args:
        boxes: Of the image, edges inside it; all its objects have one.
        size: H and W.
    """
    labels = torch.zeros(size, dtype=torch.uint8)
    for box in boxes:
        labels[cells(box)] = IGNORE
    return labels


def objectness(cams: Tensor, tags: Tensor) -> Tensor:
    """How likely a cell is of some object: the largest CAM of the tagged classes; NaN where an image has no tag. [ours]

    Args:
        cams: float (B, C, h, w) in [0, 1].
        tags: float or bool (B, C).

    Returns:
        float (B, h, w) in [0, 1], or NaN: without a tag there is no map to trust.
    """
    there = tags > 0
    strongest = cams.masked_fill(~there[:, :, None, None], 0).amax(dim=1)
    return strongest.masked_fill(~there.any(dim=1)[:, None, None], torch.nan)


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)
