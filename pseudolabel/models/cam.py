"""The CAM network: a backbone and a 1x1 classifier without bias, whose maps are the class activation maps.

M = w * f, logit = w . pool(f): the mean over positions (Zhou et al. 2016, where it equals the mean of M), or the
maximum of each feature channel over positions, as CoSA releases it. [code: pooling] The latter is not the maximum of M:
each channel's own position gets the gradient, so that a tag teaches many cells instead of one. The auxiliary head on an
earlier ViT block is theirs, too.
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
        logits: (B, C), the main head's.
        auxiliary_logits: (B, C), the auxiliary head's; None without one.
    """

    maps: Tensor
    auxiliary: Tensor | None
    logits: Tensor
    auxiliary_logits: Tensor | None


class HeadOutput(NamedTuple):
    """What one head gives: class activation maps (B, C, h, w), unnormalised, and class logits (B, C)."""

    maps: Tensor
    logits: Tensor


class CamNetwork(nn.Module):
    """Backbone, classifier and optional auxiliary classifier.

    Args:
        backbone: The feature extractor; it has an auxiliary head if it gives an earlier map.
        classes: Number of object classes, background not counted.
        pooling: ``gap`` or ``gmp``, global average or global max pooling of the features.
    """

    def __init__(self, backbone: Backbone, classes: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.classifier = _classifier(backbone.channels, classes)
        earlier = backbone.auxiliary_channels
        self.auxiliary = _classifier(earlier, classes) if earlier else None

    def forward(self, images: Tensor) -> CamOutput:
        """Maps and logits of normalised images, float (B, 3, H, W)."""
        return self.cams(*self.backbone(images))

    def cams(self, last: Tensor, earlier: Tensor | None) -> CamOutput:
        """Maps and logits of the backbone's feature maps, (B, D, h, w) each."""
        main = self._head(self.classifier, last)
        if self.auxiliary is None:
            return CamOutput(main.maps, None, main.logits, None)
        assert earlier is not None  # a backbone with auxiliary channels gives an earlier map
        auxiliary = self._head(self.auxiliary, earlier)
        return CamOutput(main.maps, auxiliary.maps, main.logits, auxiliary.logits)

    def auxiliary_head(self, images: Tensor) -> HeadOutput:
        """The auxiliary head alone, as ``forward`` gives it, without what only the other needs."""
        if self.auxiliary is None:
            raise ValueError("the network has no auxiliary head")
        return self._head(self.auxiliary, self.backbone.earlier(images))

    def _head(self, classifier: nn.Module, features: Tensor) -> HeadOutput:
        pooled = features.mean(dim=(2, 3)) if self.pooling == "gap" else features.amax(dim=(2, 3))
        return HeadOutput(classifier(features), classifier(pooled[:, :, None, None]).flatten(1))

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
