"""The teacher (assignment network): an exponential moving average (EMA) of the student, and its forward pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from pseudolabel.cosa.assignments import cells_inside
from pseudolabel.models.affinity import Attending, propagate
from pseudolabel.models.cosa import CosaNetwork, CosaOutput
from pseudolabel.models.multiscale import activation, scaled_inputs, split_mirrored
from pseudolabel.training.ema import update_ema

Network = TypeVar("Network", bound=nn.Module)


class Seen(NamedTuple):
    """What the teacher sees in a batch, before image tags are known.

    Attributes:
        maps: float32 (B, C, h, w), non-negative: the main head's maps summed over scales.
        auxiliary: float32 (B, C, h, w), non-negative: the auxiliary head's, on the grid of the main ones.
        segmentation: float32 (B, K, h, w), logits at scale 1.
    """

    maps: Tensor
    auxiliary: Tensor
    segmentation: Tensor


def make_teacher(student: Network) -> Network:
    """A copy that starts equal to the student, takes no gradient and stays in evaluation mode."""
    teacher = copy.deepcopy(student)
    return teacher.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, decay: float, step: int) -> None:
    """Move the teacher's parameters and buffers towards the student's after an optimiser step. [code], warm-up [ours]

    Args:
        teacher: Of ``make_teacher``; changed in place.
        student: The network whose EMA it is.
        decay: m, 0.9994 as released.
        step: Steps taken so far, from 1; the decay is min(m, step / (step + 10)).
    """
    update_ema(teacher.state_dict(), student, decay, step)


@torch.no_grad()
def teacher_forward(
    teacher: CosaNetwork,
    images: Tensor,
    *,
    scales: Sequence[float],
    flip: bool,
    times: int = 0,
    inside: Tensor | None = None,
) -> Seen:
    """Multi-scale, mirrored CAMs of both heads, and segmentation logits at scale 1.

    One forward pass a scale, the mirrored images in the same batch. The segmentation head, which costs as much as a
    small ViT, runs at scale 1 only. [ours: logits of image and mirror image are averaged]

    Args:
        teacher: In evaluation mode.
        images: Normalised (B, 3, H, W), the weak views; H and W multiples of the stride.
        scales: Factors on H and W; 1 must be among them.
        flip: Also use the mirrored images.
        times: Steps of attention affinity propagation, of the summed maps with the affinity of scale 1, of a plain
            ViT. [ours]
        inside: bool (B, H, W), False where a pixel is padding, which nobody attends to; None: there is none.

    Raises:
        ValueError: Scale 1 is not among the scales.
    """
    if 1 not in scales:
        raise ValueError(f"the teacher's scales must hold 1, at which it segments, found {tuple(scales)}")
    stride = teacher.backbone.stride
    grid = (images.shape[2] // stride, images.shape[3] // stride)
    main, auxiliary, segmentation = [], [], []
    affinity: Tensor | None = None
    views = scaled_inputs(images, scales, flip=flip, multiple=stride)
    for scale, view in zip(scales, views, strict=True):
        if scale == 1:
            output, affinity = _outputs(teacher, view, grid, flip=flip, attending=times > 0)
            maps, earlier, logits = output.maps, output.auxiliary, output.segmentation.float()
            segmentation.append(torch.stack(split_mirrored(logits)).mean(dim=0) if flip else logits)
        else:
            maps, earlier = teacher(view)[:2]
        main.append(activation(maps, grid, flip=flip))
        auxiliary.append(activation(earlier, grid, flip=flip))
    sums = [torch.stack(maps).sum(dim=0) for maps in (main, auxiliary)]
    if affinity is not None:
        cells = None if inside is None else cells_inside(inside, grid)
        sums = [propagate(maps, affinity, times, cells) for maps in sums]
    return Seen(sums[0], sums[1], segmentation[0])


def _outputs(
    teacher: CosaNetwork, view: Tensor, grid: tuple[int, int], *, flip: bool, attending: bool
) -> tuple[CosaOutput, Tensor | None]:
    """One forward pass and, if asked for, what the patches attended to in it."""
    if not attending:
        return teacher.outputs(view), None
    with Attending(teacher.backbone) as attention:
        output = teacher.outputs(view)
    return output, attention.affinity(grid if flip else None)
