"""How well the two branches agree: labels from CAMs against labels from segmentation, without any mask. [ours]

Only pixels that both label count. Neither map is the truth, so that both measures are the same either way round.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.data.records import IGNORE
from pseudolabel.runtime.devices import wide_dtype


class Agreement(NamedTuple):
    """How well two label maps agree; NaN where no pixel is labelled by both.

    Attributes:
        share: Of the pixels that both label, those with the same label.
        miou: Mean over the classes that either map has, background included, of the pixels that have the class in both
            maps over those that have it in any.
    """

    share: float
    miou: float


@torch.no_grad()
def joint_counts(cam: Tensor, segmentation: Tensor, classes: int) -> Tensor:
    """Count pixels by both labels. Counts of parts of a batch add up, on one device or over several processes.

    Args:
        cam: uint8 (B, H, W), labels from CAMs, 255 = ignore.
        segmentation: integer (B, h, w), labels from segmentation, 255 = ignore; the nearest one is taken where it is of
            another size.
        classes: K, background included.

    Returns:
        int64 (K, K): rows by CAM label, columns by segmentation label; pixels that either ignores are left out.
    """
    other = segmentation.to(torch.uint8)  # half the work of a wider type
    if other.shape != cam.shape:
        other = F.interpolate(other[:, None], cam.shape[1:], mode="nearest-exact")[:, 0]
    known = (cam != IGNORE) & (other != IGNORE)
    ignored = classes * classes  # one more bin, so that shapes stay fixed
    code = torch.where(known, cam.long() * classes + other, ignored)
    return torch.bincount(code.flatten(), minlength=ignored + 1)[:-1].view(classes, classes)


def agreement(counts: Tensor) -> Agreement:
    """How well the maps agree that ``joint_counts`` counted.

    Args:
        counts: int64 (K, K).
    """
    pixels = counts.to(wide_dtype(counts.device))
    both = pixels.diagonal()
    either = pixels.sum(dim=0) + pixels.sum(dim=1) - both
    share = both.sum() / pixels.sum()  # 0 / 0 is NaN
    miou = (both[either > 0] / either[either > 0]).mean()
    return Agreement(float(share), float(miou))
