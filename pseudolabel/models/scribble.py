"""The network of train-scribble: a segmenter, and on request DFR's feature consistency head beside its decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.segmenter import LargeFov, Segmenter
from pseudolabel.models.weights import Weights


class ScribbleOutput(NamedTuple):
    """What one forward pass gives; h and w are the grid of the backbone's last map.

    Attributes:
        segmentation: (B, K, h, w), logits, background first.
        embedding: float32 (B, D, h, w), of length 1 at every cell; None without a consistency head.
    """

    segmentation: Tensor
    embedding: Tensor | None


class ConsistencyHead(nn.Module):
    """Two 1x1 convolutions with a ReLU between them, then division by the length. [ours: layers]

    Args:
        channels: Channels of the feature map; as many are between the two.
        dimensions: D. The lattice filters with at most 11, as position and colour take 5 of its 16.
    """

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, dimensions, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Embedding (B, D, h, w) of features (B, channels, h, w): float32, of length 1 at every cell."""
        return F.normalize(self.second(F.relu(self.first(features))).float(), dim=1)


class ScribbleNetwork(Segmenter):
    """A segmenter with LargeFOV head. Called like one it gives logits alone, which is all that inference needs.

    Args:
        backbone: The feature extractor.
        classes: K, background included, as for every segmenter.
        embedding: D, dimensions of the consistency head; None for no such head.
    """

    def __init__(self, backbone: Backbone, classes: int, embedding: int | None = None) -> None:
        super().__init__(backbone, LargeFov(backbone.channels, classes))
        self.consistency = ConsistencyHead(backbone.channels, embedding) if embedding else None

    def outputs(self, images: Tensor) -> ScribbleOutput:
        """Everything, of normalised images float (B, 3, H, W)."""
        features, _ = self.backbone(images)
        embedding = None if self.consistency is None else self.consistency(features)
        return ScribbleOutput(self.head(features), embedding)

    def segment(self, images: Tensor) -> Tensor:
        """Segmentation logits (B, K, h, w) of normalised images (B, 3, H, W), and nothing else."""
        logits: Tensor = self(images)
        return logits

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [*super().heads(), *([] if self.consistency is None else [self.consistency])]


def build_scribble_network(architecture: Mapping[str, Any], *, weights: Weights = None) -> ScribbleNetwork:
    """Build the network that an ``architecture`` attribute describes; ``classes`` counts the background."""
    backbone = Backbone(architecture, output_stride=architecture["output_stride"], weights=weights)
    return ScribbleNetwork(backbone, architecture["classes"], architecture["embedding"])
