"""Two segmenters that learn from each other (CCVC, CVPR 2023), and what predicts with one of them or both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.segmenter import AnySegmenter, LargeFov, Segmenter
from pseudolabel.models.weights import Weights


class MappedSegmenter(Segmenter):
    """A segmenter whose features pass through a mapping on their way to the head: 1x1 convolution, norm, ReLU.

    CCVC's second network, less its dropout. [read: the mapping] [ours: on the backbone's features, no dropout]
    """

    def __init__(self, backbone: Backbone, head: LargeFov) -> None:
        super().__init__(backbone, head)
        channels = backbone.channels
        self.mapping = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

    def features(self, images: Tensor) -> Tensor:
        """What the head reads (B, D, h, w), not negative, of normalised images (B, 3, H, W)."""
        found: Tensor = self.mapping(self.backbone(images)[0])
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, h, w) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [*super().heads(), self.mapping]


class PairNetwork(nn.Module):
    """Two segmenters with weights of their own. Called like one it predicts with the mean of their softmaxes. [ours]

    Attributes:
        first: A plain segmenter.
        second: One with a mapping.
        multiple: Of which an image's sides have to be.
    """

    def __init__(self, first: Segmenter, second: MappedSegmenter) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.multiple = first.multiple

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms (B, classes, h, w) of the mean shares, whose softmax these are."""
        shares = [F.log_softmax(network(images).float(), dim=1) for network in (self.first, self.second)]
        return torch.logsumexp(torch.stack(shares), dim=0) - math.log(2)

    @property
    def backbone(self) -> Backbone:
        """The first's; both are of one kind."""
        return self.first.backbone

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the input, for pixels in [0, 1]; a value a channel."""
        return self.first.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of the input, for pixels in [0, 1]; a value a channel."""
        return self.first.std

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [*self.first.heads(), *self.second.heads()]


AnyPredictor = AnySegmenter | PairNetwork


def build_pair(architecture: Mapping[str, Any], *, weights: Weights = None) -> PairNetwork:
    """Build the networks that an ``architecture`` attribute describes; ``classes`` counts the background.

    Both backbones start from the same weights, if they start from any; heads and mapping start differently.
    """
    backbones = [Backbone(architecture, output_stride=architecture["output_stride"], weights=weights) for _ in range(2)]
    first, second = ((one, LargeFov(one.channels, architecture["classes"])) for one in backbones)
    return PairNetwork(Segmenter(*first), MappedSegmenter(*second))
