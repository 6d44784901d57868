"""Networks that say which neighbouring cells belong together, for ``train-affinity``.

Two forms. ``features``: 1x1 convolutions on an earlier and the last feature map, and a = exp(-mean |f_i - f_j|), as in
PSA; two maps in place of its three levels, and fewer channels. [ours] ``attention``: a = sigmoid of a weighted sum of
a plain ViT's attention scores, heads and blocks each with a weight of their own, made symmetric, as in AFA; the ViT
itself is not trained, so that it takes no more than a logistic regression. [ours]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.errors import InputError
from pseudolabel.models.affinity import Scores, middle_blocks
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.timm_models import built_as_vit
from pseudolabel.models.weights import Weights
from pseudolabel.pairwise.cell_pairs import Pairs, neighbour_pairs
from pseudolabel.runtime.resizing import resize

WIDTHS = (64, 128)
"""Channels of the earlier and the last map; joined, as many as both."""


class FeatureAffinity(nn.Module):
    """Affinity by the distance of trained features.

    Args:
        backbone: Gives an earlier map as well.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        channels = (backbone.auxiliary_channels or 0, backbone.channels)
        self.levels = nn.ModuleList(
            nn.Conv2d(before, after, 1, bias=False) for before, after in zip(channels, WIDTHS, strict=True)
        )
        self.joint = nn.Conv2d(sum(WIDTHS), sum(WIDTHS), 1, bias=False)

    def forward(self, images: Tensor, radius: int) -> tuple[Tensor, Pairs, tuple[int, int]]:
        """Affinities of normalised images (B, 3, H, W): float32 (B, P), the pairs, and the grid."""
        last, earlier = self.backbone(images)
        assert earlier is not None
        grid = (last.shape[2], last.shape[3])
        maps = (resize(earlier.float(), grid), last.float())
        with torch.autocast(images.device.type, enabled=False):
            joined = torch.cat([F.elu(level(found)) for level, found in zip(self.levels, maps, strict=True)], dim=1)
            features = F.elu(self.joint(joined)).flatten(2)
            pairs = pairs_on(grid, radius, images.device)
            distance = (features[:, :, pairs.first] - features[:, :, pairs.second]).abs().mean(dim=1)
        return (-distance).exp(), pairs, grid

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [*self.levels, self.joint]


class AttentionAffinity(nn.Module):
    """Affinity by weighted attention scores of a plain ViT that is not trained.

    Args:
        backbone: A plain ViT; see ``Backbone.attends``.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.blocks = tuple(range(middle_blocks(backbone.depth)[0], backbone.depth))
        self.weights = nn.Linear(len(self.blocks) * backbone.attention_heads, 1)
        nn.init.constant_(self.weights.weight, 1 / self.weights.in_features)

    def forward(self, images: Tensor, radius: int) -> tuple[Tensor, Pairs, tuple[int, int]]:
        """As of ``FeatureAffinity``."""
        with torch.no_grad(), Scores(self.backbone, self.blocks) as kept:
            last, _ = self.backbone(images)
        grid = (last.shape[2], last.shape[3])
        pairs = pairs_on(grid, radius, images.device)
        with torch.autocast(images.device.type, enabled=False):
            affinity = self.weights(kept.of_pairs(*pairs)).squeeze(2).sigmoid()
        return affinity, pairs, grid

    def heads(self) -> list[nn.Module]:
        """See ``FeatureAffinity``."""
        return [self.weights]


AnyAffinity = FeatureAffinity | AttentionAffinity


def build_pair_affinity(architecture: Mapping[str, Any], *, weights: Weights = None) -> AnyAffinity:
    """Build the network that an ``architecture`` attribute describes.

    Raises:
        InputError: Form ``attention`` is of a backbone without any between patches.
    """
    name = architecture["backbone"]
    if architecture["form"] == "features":
        vit = built_as_vit(architecture)
        earlier = {"auxiliary_block" if vit else "auxiliary_stage": architecture["earlier"]}
        backbone = Backbone(architecture, output_stride=architecture["output_stride"], weights=weights, **earlier)
        return FeatureAffinity(backbone)
    backbone = Backbone(architecture, output_stride=architecture["output_stride"], weights=weights)
    if not backbone.attends:
        raise InputError(
            f"--form attention: {name} has no attention between patches as plain ViTs do; use --form features"
        )
    return AttentionAffinity(backbone)


def pairs_on(grid: tuple[int, int], radius: int, device: torch.device) -> Pairs:
    """The pairs of a grid, on a device."""
    return Pairs(*(cells.to(device) for cells in neighbour_pairs(grid, radius)))
