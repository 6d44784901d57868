"""The teacher (assignment network): an exponential moving average (EMA) of the student, and its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pseudolabel.cosa.assignments import cells_inside
from pseudolabel.models.affinity import Attending, propagate
from pseudolabel.models.cosa import CosaNetwork, CosaOutput
from pseudolabel.models.multiscale import activation, scaled_inputs, split_mirrored
from pseudolabel.runtime.resizing import resize
from pseudolabel.training.ema import update_ema


class Seen(NamedTuple):
    """What the teacher sees in a batch, before image tags are known.

    Attributes:
        maps: float32 (B, C, h, w), non-negative: the main head's maps summed over scales; (B, C, H, W) where they were
            fused at the size of the image.
        auxiliary: Likewise, the auxiliary head's.
        segmentation: float32 (B, K, h, w), logits at scale 1; (B, K, H, W) where they are of all scales.
        grid: h and w.
    """

    maps: Tensor
    auxiliary: Tensor
    segmentation: Tensor
    grid: tuple[int, int]


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, decay: float, step: int) -> None:
    """Move the teacher's parameters and buffers towards the student's after an optimiser step.

    [code: training-steps] but the warm-up, and buffers, of which the released network has none: those are ours.

    Args:
        teacher: Of ``training.ema.make_teacher``; changed in place.
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
    cam_fusion: Literal["grid", "image"] = "grid",
    spl_scales: Literal["one", "all"] = "one",
) -> Seen:
    """Multi-scale, mirrored CAMs of both heads, and segmentation logits.

    One forward pass a scale, the mirrored images in the same batch. As released [code: teacher-cams,
    teacher-segmentation], images are made smaller without antialiasing and maps of every scale are enlarged to the
    image before they are fused (``cam_fusion`` image), and logits are summed over all scales and their mirrors
    (``spl_scales`` all). Ours are cheaper: maps are fused on the grid of scale 1, and the segmentation head, which
    costs as much as a small ViT, runs at scale 1 only, where image and mirror image are averaged.

    Args:
        teacher: In evaluation mode.
        images: Normalised (B, 3, H, W), the weak views; H and W multiples of the stride.
        scales: Factors on H and W; 1 must be among them.
        flip: Also use the mirrored images.
        times: Steps of attention affinity propagation, of the summed maps with the affinity of scale 1, of a plain
            ViT. [ours]
        inside: bool (B, H, W), False where a pixel is padding, which nobody attends to; None: there is none.
        cam_fusion: Where the scales' maps are fused; ``image`` needs ``times`` 0, as affinities are of the grid.
        spl_scales: Whose logits there are.

    Raises:
        ValueError: Scale 1 is not among the scales, or maps fused at the image would be propagated.
    """
    if 1 not in scales:
        raise ValueError(f"the teacher's scales must hold 1, at which it segments, found {tuple(scales)}")
    if times and cam_fusion == "image":
        raise ValueError("maps that are fused at the size of the image cannot be propagated along the grid's affinity")
    stride = teacher.backbone.stride
    grid = (images.shape[2] // stride, images.shape[3] // stride)
    image = (images.shape[2], images.shape[3])
    at_image = cam_fusion == "image"
    main: list[Tensor] = []
    auxiliary: list[Tensor] = []
    segmentation: list[Tensor] = []
    affinity: Tensor | None = None
    views = scaled_inputs(images, scales, flip=flip, multiple=stride, antialias=not at_image)
    for scale, view in zip(scales, views, strict=True):
        if scale == 1 or spl_scales == "all":
            attending = times > 0 and scale == 1
            output, found = _outputs(teacher, view, grid, flip=flip, attending=attending)
            affinity = found if attending else affinity
            maps, earlier = output.maps, output.auxiliary
            segmentation.append(_both(output.segmentation.float(), flip=flip))
        else:
            maps, earlier = teacher(view)[:2]
        for found_maps, one in ((main, maps), (auxiliary, earlier)):
            found_maps.append(activation(one, image if at_image else grid, flip=flip, enlarge_first=at_image))
    sums = [torch.stack(maps).sum(dim=0) for maps in (main, auxiliary)]
    if affinity is not None:
        cells = None if inside is None else cells_inside(inside, grid)
        sums = [propagate(maps, affinity, times, cells) for maps in sums]
    if spl_scales == "one":
        return Seen(sums[0], sums[1], segmentation[0] / (2 if flip else 1), grid)
    enlarged = torch.stack([resize(logits, image) for logits in segmentation])
    return Seen(sums[0], sums[1], enlarged.sum(dim=0), grid)


def _both(logits: Tensor, *, flip: bool) -> Tensor:
    """The logits of the images plus those of their mirror images, un-mirrored; enlarging commutes with both."""
    return torch.stack(split_mirrored(logits)).sum(dim=0) if flip else logits


def _outputs(
    teacher: CosaNetwork, view: Tensor, grid: tuple[int, int], *, flip: bool, attending: bool
) -> tuple[CosaOutput, Tensor | None]:
    """One forward pass and, if asked for, what the patches attended to in it."""
    if not attending:
        return teacher.outputs(view), None
    with Attending(teacher.backbone) as attention:
        output = teacher.outputs(view)
    return output, attention.affinity(grid if flip else None)
