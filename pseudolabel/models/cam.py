"""The CAM network: a backbone and a 1x1 classifier without bias, whose maps are the class activation maps.

M = w * f, logit = pool(M) (methods: Zhou et al. 2016; the auxiliary head on an earlier ViT block is ToCo's and CoSA's).
Resizing a map commutes with a 1x1 convolution, so auxiliary maps of a CNN stay on the grid of their own stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.weights import Weights


class CamOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        maps: (B, C, h, w), unnormalised class activation maps of the last feature map.
        auxiliary: (B, C, h, w), those of the earlier one, on its own grid; None without an auxiliary head.
    """

    maps: Tensor
    auxiliary: Tensor | None


class CamNetwork(nn.Module):
    """Backbone, classifier and optional auxiliary classifier.

    Args:
        backbone: The feature extractor; it has an auxiliary head if it gives an earlier map.
        classes: Number of object classes, background not counted.
        pooling: ``gap`` or ``gmp``.
    """

    def __init__(self, backbone: Backbone, classes: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.classifier = _classifier(backbone.channels, classes)
        earlier = backbone.auxiliary_channels
        self.auxiliary = _classifier(earlier, classes) if earlier else None

    def forward(self, images: Tensor) -> CamOutput:
        """Maps of normalised images, float (B, 3, H, W)."""
        last, earlier = self.backbone(images)
        return CamOutput(self.classifier(last), self.auxiliary(earlier) if self.auxiliary is not None else None)

    def auxiliary_maps(self, images: Tensor) -> Tensor:
        """The auxiliary maps alone, as ``forward`` gives them, without what only the others need."""
        if self.auxiliary is None:
            raise ValueError("the network has no auxiliary head")
        found: Tensor = self.auxiliary(self.backbone.earlier(images))
        return found

    def pool(self, maps: Tensor) -> Tensor:
        """Class logits (B, C) of maps (B, C, h, w)."""
        return maps.mean(dim=(2, 3)) if self.pooling == "gap" else maps.amax(dim=(2, 3))

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [self.classifier] if self.auxiliary is None else [self.classifier, self.auxiliary]


def build_cam_network(architecture: Mapping[str, Any], *, weights: Weights = None) -> CamNetwork:
    """Build the network that an ``architecture`` attribute describes."""
    backbone = Backbone(
        architecture,
        output_stride=architecture["output_stride"],
        auxiliary_block=architecture["auxiliary_block"],
        weights=weights,
    )
    return CamNetwork(backbone, architecture["classes"], architecture["pooling"])


def _classifier(channels: int, classes: int) -> nn.Module:
    layer = nn.Conv2d(channels, classes, kernel_size=1, bias=False)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return layer
