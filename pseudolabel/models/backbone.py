"""Any timm backbone as a feature extractor: its last feature map and an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pseudolabel.errors import InputError
from pseudolabel.models.timm_models import (
    PLAIN_VITS,
    built_as_vit,
    creation,
    describe_backbone,
    fix_positions,
    statistics,
)
from pseudolabel.models.weights import Weights, create

_MOST_SCORES = 4 * 2**20
"""Of a block's attention in training on a processor: below, matrix products are quicker than the fused operation, whose
way back is slow there (benchmarks/speed/attention.py)."""


class Backbone(nn.Module):
    """A timm model without its classifier.

    Args:
        described: Name of a timm model, as of ``--backbone``, or what ``describe_backbone`` says of it.
        output_stride: Stride of a CNN's last map, by dilation; None keeps the model's own.
        auxiliary_block: Negative index of the ViT block whose tokens are given out too; None gives none. CNNs have no
            use for it.
        auxiliary_stage: Negative index of the CNN's stage whose map is given out too; None gives none. Plain ViTs have
            no use for it.
        weights: Initial weights, as for ``weights.create``.

    Attributes:
        channels: Channels of the last map.
        auxiliary_channels: Channels of the earlier map, or None.
        in_chans: Channels of the input.
        stride: Pixels of the image per cell of the last map.
        depth: Blocks of a plain ViT, stages of a CNN.
        is_vit: Whether it is a plain ViT.
        mean, std: The normalisation of the input, for pixels in [0, 1]; a value a channel.

    Raises:
        InputError: No such model or file, or it cannot do what is asked.
        ArtefactError: The weights are not of this model.
        PseudolabelError: The weights could not be downloaded.
    """

    def __init__(
        self,
        described: str | Mapping[str, Any],
        *,
        output_stride: int | None = None,
        auxiliary_block: int | None = None,
        auxiliary_stage: int | None = None,
        weights: Weights = None,
    ) -> None:
        super().__init__()
        architecture = describe_backbone(described) if isinstance(described, str) else described
        name = architecture["backbone"]
        timm_name, settings = creation(architecture)
        self.in_chans: int = settings["in_chans"]
        if output_stride is not None and built_as_vit(architecture):
            raise InputError(f"--output-stride is for CNNs; {name} is a plain ViT with a fixed patch size")
        if output_stride is not None:
            settings["output_stride"] = output_stride
        model: Any = create(
            lambda **loading: timm.create_model(timm_name, **{**settings, **loading, "num_classes": 0}),
            lambda network: network,
            name,
            weights,
        )
        if architecture.get("position_embedding") == "frozen":
            fix_positions(model, name)
        self.model = model
        self.is_vit = isinstance(model, PLAIN_VITS)
        # plain ViTs alone: other attention is over other cells, and timm does not fuse all of it
        self._attentions: list[Any] = [m for m in model.modules() if self.is_vit and getattr(m, "fused_attn", False)]
        if not hasattr(model, "forward_intermediates"):
            raise InputError(f"{name} gives no feature maps (no forward_intermediates in this timm); choose another")
        self.depth = depth = len(model.blocks if self.is_vit else getattr(model, "feature_info", ()))
        kind, earlier = ("block", auxiliary_block) if self.is_vit else ("stage", auxiliary_stage)
        if earlier is not None and not -depth <= earlier < -1:
            raise InputError(f"--auxiliary-{kind} {earlier} is not an earlier {kind} of {name}, which has {depth}")
        self._indices = [-1] if earlier is None else [depth + earlier, depth - 1]
        try:
            self.channels, self.auxiliary_channels, self.stride = self._probe()
        except (AssertionError, RuntimeError) as error:
            cause = str(error).split("\n", 1)[0]
            raise InputError(
                f"{name} gives no feature maps that can be used here ({cause}); choose a CNN or a plain ViT"
            ) from error
        self.mean, self.std = statistics(model, architecture)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of normalised images.

        Args:
            images: float (B, in_chans, H, W), H and W multiples of the stride for a ViT.

        Returns:
            The last map (B, C, h, w), after a ViT's final norm, and the earlier one or None: for a ViT its block's raw
            output (B, C, h, w), as ToCo and CoSA read it [code]; for a CNN of its own channels and on its own, often
            finer, grid.
        """
        maps = self._maps(images, self._indices)
        return maps[-1], maps[0] if len(maps) > 1 else None

    def earlier(self, images: Tensor) -> Tensor:
        """The earlier map alone, as ``forward`` gives it; the blocks behind it are not computed."""
        return self.block(images, self._indices[0])

    def block(self, images: Tensor, index: int) -> Tensor:
        """The map of one block or stage, counted from 0; those behind it are not computed."""
        found: Tensor = self._maps(images, [index], stop_early=True)[0]
        return found

    @property
    def attends(self) -> bool:
        """Whether every block has attention between patches that can be read (``affinity``): of plain ViTs alone."""
        if not self.is_vit:
            return False
        fused = [getattr(module, "fused_attn", False) for block in self.model.blocks for module in block.modules()]
        return bool(sum(fused) == self.depth)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of a plain ViT before its patches: class token, registers."""
        return int(self.model.num_prefix_tokens)

    def _maps(self, images: Tensor, indices: list[int], **settings: bool) -> list[Tensor]:
        fused = not (torch.is_grad_enabled() and images.device.type == "cpu" and self._attends_to_few(images))
        for module in self._attentions:
            module.fused_attn = fused
        if not self.is_vit:
            maps: list[Tensor] = self.model.forward_intermediates(
                images, indices=indices, norm=True, output_fmt="NCHW", intermediates_only=True, **settings
            )
            return maps
        tokens, maps = self.model.forward_intermediates(images, indices=indices, output_fmt="NCHW", **settings)
        if indices[-1] in (-1, self.depth - 1):  # the final norm belongs to the last block alone
            maps[-1] = tokens[:, self.prefix_tokens :].transpose(1, 2).reshape(maps[-1].shape)
        return maps

    def _attends_to_few(self, images: Tensor) -> bool:
        """Whether the scores of one block's attention take little memory, when they are stored for the way back."""
        cells = (images.shape[2] // self.stride) * (images.shape[3] // self.stride)
        return all(len(images) * module.num_heads * cells**2 <= _MOST_SCORES for module in self._attentions)

    @torch.no_grad()
    def _probe(self) -> tuple[int, int | None, int]:
        side = 2 * int(self.model.patch_embed.feat_ratio()) if self.is_vit else 64
        self.model.eval()
        features, earlier = self.forward(torch.zeros(1, self.in_chans, side, side))
        self.model.train()
        channels = None if earlier is None else int(earlier.shape[1])
        return int(features.shape[1]), channels, side // int(features.shape[2])


def require_multiple(crop: int, multiple: int, name: str) -> None:
    """Refuse a training view whose side a network cannot take.

    Args:
        crop: The side, in pixels.
        multiple: What the network's inputs are multiples of, in pixels.
        name: The network, for the message.

    Raises:
        InputError: The side is no multiple.
    """
    if crop % multiple:
        below = crop - crop % multiple
        nearest_sides = f"{below} or {below + multiple}" if below else str(multiple)
        raise InputError(f"--crop {crop} is no multiple of {multiple}, as {name} needs; use {nearest_sides}")


def freeze(model: nn.Module, share: float) -> None:
    """Stop training a timm model's first parameters, up to a share of their number."""
    parameters = list(model.parameters())
    budget = share * sum(parameter.numel() for parameter in parameters)
    for parameter in parameters:
        budget -= parameter.numel()
        if budget < 0:
            break
        parameter.requires_grad = False
