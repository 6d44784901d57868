"""The segmentation network: a timm backbone with DeepLab's LargeFOV head, or with a decoder of a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.errors import InputError
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.timm_models import creation, fix_positions, statistics
from pseudolabel.models.weights import Weights, create

_UNFIT = (ValueError, IndexError, TypeError, AssertionError, RuntimeError)
"""What smp and timm raise: no pyramid of maps, no output stride, a fixed size of input."""

GRID = 4  # pixels per cell to which finer decoders' logits are reduced before they are kept


class LargeFov(nn.Module):
    """Two dilated 3x3 convolutions (rate 5, 512 channels) and a 1x1 classifier: DeepLab-LargeFOV as CoSA uses it.

    No biases, and torch's own initial weights. [code: largefov] (The released file defines others and never calls
    them.)

    Args:
        channels: Channels of the feature map.
        classes: Output channels, background included.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 512, 3, padding=5, dilation=5, bias=False)
        self.second = nn.Conv2d(512, 512, 3, padding=5, dilation=5, bias=False)
        self.classifier = nn.Conv2d(512, classes, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes, h, w) of features (B, channels, h, w)."""
        logits: Tensor = self.classifier(F.relu(self.second(F.relu(self.first(features)))))
        return logits


class Segmenter(nn.Module):
    """Backbone and LargeFOV head. Logits come at the backbone's stride."""

    def __init__(self, backbone: Backbone, head: LargeFov) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.multiple = backbone.stride

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, h, w) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.head(self.backbone(images)[0])
        return logits

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the input, for pixels in [0, 1]; a value a channel."""
        return self.backbone.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of the input, for pixels in [0, 1]; a value a channel."""
        return self.backbone.std

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [self.head]


class DecoderSegmenter(nn.Module):
    """A decoder of segmentation_models_pytorch on a timm encoder. Logits come at a quarter of the image's size.

    Args:
        architecture: As of ``build_segmenter``.
        weights: Initial weights of the encoder, as for ``weights.create``.

    Attributes:
        mean, std: The normalisation of the input, for pixels in [0, 1]; a value a channel.

    Raises:
        InputError: No such model or file, or this decoder does not work on it at every size.
        ArtefactError: The weights are not of this model.
        PseudolabelError: The weights could not be downloaded.
    """

    def __init__(self, architecture: Mapping[str, Any], *, weights: Weights = None) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        name, decoder = architecture["backbone"], architecture["decoder"]
        timm_name, settings = creation(architecture)
        self.in_chans: int = settings.pop("in_chans")
        self.multiple = 32

        def make(*, pretrained: bool, **loading: Any) -> Any:
            return smp.create_model(
                decoder,
                encoder_name=f"tu-{timm_name}",
                encoder_weights=pretrained or None,
                in_channels=self.in_chans,
                classes=architecture["classes"],
                **{**settings, **loading},
            )

        state = torch.get_rng_state()
        try:  # without weights, so that what fails with them is their fault
            self.network: Any = make(pretrained=False)
            self._probe()
        except _UNFIT as error:
            cause = str(error).split("\n", 1)[0][:160]
            raise InputError(f"decoder {decoder} does not work on {name} ({cause}); use --decoder largefov") from error
        if weights is not None:
            torch.set_rng_state(state)
            self.network = create(make, lambda network: network.encoder.model, name, weights)
        if architecture.get("position_embedding") == "frozen":
            fix_positions(self.network.encoder.model, name)
        self.mean, self.std = statistics(self.network.encoder.model, architecture)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H / 4, W / 4) of normalised images (B, in_chans, H, W)."""
        logits = self.network(images).float()  # torch antialiases in bfloat16 on no processor
        size = (images.shape[2] // GRID, images.shape[3] // GRID)
        return logits if logits.shape[2:] == size else F.interpolate(logits, size, mode="bilinear", antialias=True)

    def heads(self) -> list[nn.Module]:
        """The parts that start from nothing and learn at the head rate."""
        return [self.network.decoder, self.network.segmentation_head]

    @torch.no_grad()
    def _probe(self) -> None:
        """Many encoders are built without complaint and refuse any size but that of their pretraining."""
        self.eval()
        side = 4 * self.multiple  # pan halves the last map three times
        self(torch.zeros(1, self.in_chans, side, side))
        self.train()


AnySegmenter = Segmenter | DecoderSegmenter


def build_segmenter(architecture: Mapping[str, Any], *, weights: Weights = None) -> AnySegmenter:
    """Build the network that an ``architecture`` attribute describes; ``classes`` counts the background."""
    if architecture["decoder"] != "largefov":
        return DecoderSegmenter(architecture, weights=weights)
    encoder = Backbone(architecture, output_stride=architecture["output_stride"], weights=weights)
    return Segmenter(encoder, LargeFov(encoder.channels, architecture["classes"]))


def timm_model(network: AnySegmenter) -> nn.Module:
    """The timm model inside."""
    inner: nn.Module = network.backbone.model if isinstance(network, Segmenter) else network.network.encoder.model
    return inner
