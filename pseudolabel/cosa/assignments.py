"""The swapped assignments: a teacher's CAMs become labels for segmentation (CPL), its segmentation for CAMs (SPL).

Both know the image tags, and neither says anything about padding. Only the classes that occur in some image's tags are
enlarged to the label's size: a batch of COCO would be ten times as much work otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.models.multiscale import unit_range
from pseudolabel.runtime.resizing import resize


class CamLabels(NamedTuple):
    """Pseudo labels from CAMs.

    Attributes:
        labels: uint8 (B, H, W): a class, 0 for background, 255 where unsure or padding.
        score: float32 (B, H, W) in [0, 1], nu = max_c M_c; 0 in an image without any class.
    """

    labels: Tensor
    score: Tensor


def guided_cams(sums: Tensor, tags: Tensor, inside: Tensor | None = None) -> Tensor:
    """The teacher's CAM M': per class minus the minimum and over the maximum, times the image tags. [code: minmax]

    Main and auxiliary maps go through it alike. That padding sets no extremes is ours.

    Args:
        sums: float (B, C, h, w), non-negative: a head's maps summed over scales.
        tags: float or bool (B, C).
        inside: bool (B, h, w), False where a cell is padding; None: there is none.

    Returns:
        float (B, C, h, w) in [0, 1]; 0 for absent classes and outside.
    """
    scaled = unit_range(sums, "minmax", None if inside is None else inside[:, None])
    return scaled * (tags > 0)[:, :, None, None]


def cam_labels(
    cams: Tensor, tags: Tensor, size: tuple[int, int], *, low: float, high: float, inside: Tensor | None = None
) -> CamLabels:
    """CPL as described: the strongest class where nu >= high, background where nu < low, else 255. [paper]

    [code: sure-labels], but there a score must be above a threshold to reach it. With one threshold, ``low`` and
    ``high`` equal, no pixel is unsure. The rule is ``pseudolabel.labels``', on maps enlarged bilinearly. Ties go to the
    lower class.

    Args:
        cams: float (B, C, h, w) in [0, 1], of ``guided_cams``.
        tags: float or bool (B, C).
        size: H and W.
        low: In [0, high].
        high: In [low, 1].
        inside: bool (B, H, W), False where a pixel is padding; None: there is none.
    """
    enlarged, classes, there = _enlarged(cams, tags, size)
    score, best = enlarged.masked_fill(~there[:, :, None, None], -1.0).max(dim=1)
    unsure = torch.where(score < low, 0, IGNORE)
    labels = torch.where(score >= high, _class_at(classes, best), unsure)
    return CamLabels(_within(labels, inside), score.clamp(min=0))


def released_cam_labels(
    cams: Tensor, tags: Tensor, size: tuple[int, int], *, low: float, high: float, inside: Tensor | None = None
) -> CamLabels:
    """CPL as released: softmax over {threshold} and the present classes at half the size, enlarged, argmax.

    [code: cam-labels] Done for both thresholds: the class that beats the high one, background where none beats the low
    one, else 255. It differs from ``cam_labels`` where labels meet (probabilities are enlarged, not maps) and at
    equality (a class must be above the threshold). Arguments and result are those of ``cam_labels``; ``score`` is
    enlarged from the half size.
    """
    half = (max(1, size[0] // 2), max(1, size[1] // 2))
    enlarged, classes, there = _enlarged(cams, tags, half)
    known = enlarged.masked_fill(~there[:, :, None, None], -torch.inf)
    found = []
    for threshold in (low, high):
        background = enlarged.new_full((len(cams), 1, *half), threshold)
        shares = torch.cat([background, known], dim=1).softmax(dim=1)
        best = resize(shares, size).argmax(dim=1)
        found.append(torch.where(best > 0, _class_at(classes, best - 1), 0))
    wide, sure = found
    labels = torch.where((sure == 0) & (wide > 0), IGNORE, sure)
    score = resize(enlarged.amax(dim=1, keepdim=True), size)[:, 0]
    return CamLabels(_within(labels, inside), score)


def segmentation_labels(logits: Tensor, tags: Tensor, *, temperature: float = 0.01) -> Tensor:
    """SPL: softmax(S' / tau) over background and the present classes, nearly one-hot with the default tau.

    [code: segmentation-labels] Padding is left to ``s2c_loss``, which takes the cells that are inside.

    Args:
        logits: float (B, K, h, w), the teacher's.
        tags: float or bool (B, C).
        temperature: tau.

    Returns:
        float32 (B, K, h, w), summing to 1 over K; 0 for absent classes.
    """
    absent = F.pad(tags <= 0, (1, 0), value=False)  # the background is always there
    return (logits.float() / temperature).masked_fill(absent[:, :, None, None], -torch.inf).softmax(dim=1)


def cells_inside(inside: Tensor, grid: tuple[int, int]) -> Tensor:
    """The grid cells that lie wholly inside. [ours]

    Args:
        inside: bool (B, H, W), False where a pixel is padding; H and W multiples of the grid's h and w.
        grid: h and w.

    Returns:
        bool (B, h, w).
    """
    cell = (inside.shape[1] // grid[0], inside.shape[2] // grid[1])
    return F.max_pool2d((~inside[:, None]).float(), cell)[:, 0] == 0


def _enlarged(cams: Tensor, tags: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The maps of each image's own classes.

    Returns:
        Maps float32 (B, P, H, W), P the most classes of an image, at least 1, classes ascending; their class indices
        uint8 (B, P), from 1; bool (B, P), False where an image has fewer classes, whose map is zero there.
    """
    there, order = (tags > 0).sort(dim=1, descending=True, stable=True)
    most = max(1, int(there.sum(dim=1).max()))
    there, order = there[:, :most], order[:, :most]
    chosen = cams.gather(1, order[:, :, None, None].expand(-1, -1, *cams.shape[2:])).float()
    chosen = chosen * there[:, :, None, None]
    return resize(chosen, size), (order + 1).to(torch.uint8), there


def _class_at(classes: Tensor, best: Tensor) -> Tensor:
    """Class indices (B, H, W) of positions (B, H, W) in each image's own list (B, P)."""
    return classes.gather(1, best.clamp(min=0).flatten(1)).view_as(best)


def _within(labels: Tensor, inside: Tensor | None) -> Tensor:
    labels = labels.to(torch.uint8)
    return labels if inside is None else labels.masked_fill(~inside, IGNORE)
