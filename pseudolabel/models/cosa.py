"""CoSA's network (arXiv 2402.17891): one backbone, two classifiers whose maps are CAMs, and a segmentation head.

Student and teacher are both of this kind. The embedding of the contrastive term is there only on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import CamNetwork
from pseudolabel.models.segmenter import LargeFov, Segmenter
from pseudolabel.models.weights import Weights


class CosaOutput(NamedTuple):
    """What one forward pass gives; h and w are the grid of the backbone's last map.

    Attributes:
        maps: (B, C, h, w), unnormalised class activation maps of the last feature map.
        auxiliary: (B, C, h', w'), those of the earlier one: on the same grid for a ViT, on its stage's own for a CNN.
        segmentation: (B, C + 1, h, w), logits, background first.
        embedding: (B, D, h, w), of length 1 at every cell; None without a projection.
        logits: (B, C), the main head's class logits.
        auxiliary_logits: (B, C), the auxiliary head's.
    """

    maps: Tensor
    auxiliary: Tensor
    segmentation: Tensor
    embedding: Tensor | None
    logits: Tensor
    auxiliary_logits: Tensor


class CosaNetwork(CamNetwork):
    """A CAM network with a segmentation head. Called like one it gives CAMs alone, which are what most scales need.

    Args:
        backbone: The feature extractor; it must give an earlier map.
        classes: Number of object classes, background not counted.
        pooling: ``gap`` or ``gmp``.
        embedding: D, channels of the projection; None for no projection.

    Raises:
        ValueError: The backbone gives no earlier map.
    """

    def __init__(self, backbone: Backbone, classes: int, pooling: str, embedding: int | None = None) -> None:
        if backbone.auxiliary_channels is None:
            raise ValueError("the backbone gives no earlier map; name an auxiliary block of a ViT or stage of a CNN")
        super().__init__(backbone, classes, pooling)
        self.head = LargeFov(backbone.channels, classes + 1)
        self.multiple = backbone.stride
        self.projection = nn.Conv2d(backbone.channels, embedding, 1) if embedding else None

    def outputs(self, images: Tensor) -> CosaOutput:
        """Everything, of normalised images float (B, 3, H, W)."""
        last, earlier = self.backbone(images)
        maps, auxiliary, logits, auxiliary_logits = self.cams(last, earlier)
        assert auxiliary is not None  # the backbone gives an earlier map
        assert auxiliary_logits is not None
        embedding = None if self.projection is None else F.normalize(self.projection(last).float(), dim=1)
        return CosaOutput(maps, auxiliary, self.head(last), embedding, logits, auxiliary_logits)

    def segmenter(self) -> Segmenter:
        """The backbone and the segmentation head as a network of their own, whose parameters are the same ones."""
        return Segmenter(self.backbone, self.head)

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        more = [] if self.projection is None else [self.projection]
        return [*super().heads(), self.head, *more]


def build_cosa_network(architecture: Mapping[str, Any], *, weights: Weights = None) -> CosaNetwork:
    """Build the network that an ``architecture`` attribute describes; ``classes`` does not count the background."""
    backbone = Backbone(
        architecture,
        output_stride=architecture["output_stride"],
        auxiliary_block=architecture["auxiliary_block"],
        auxiliary_stage=architecture["auxiliary_stage"],
        weights=weights,
    )
    return CosaNetwork(backbone, architecture["classes"], architecture["pooling"], architecture["embedding"])
