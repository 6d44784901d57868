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


_UNFIT = (AssertionError, IndexError, RuntimeError, ValueError)
"""What timm raises of images whose size does not suit a model."""


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
        self._norm = True
        self.channels, self.auxiliary_channels, self.stride = self._probe(name)
        self.mean, self.std = statistics(model, architecture)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of normalised images.

        Args:
            images: float (B, in_chans, H, W), H and W multiples of the stride for a ViT.

        Returns:
            The last map (B, C, h, w), after a ViT's final norm, and the earlier one or None: for a ViT its block's raw
            output (B, C, h, w), as CoSA reads it [code: auxiliary-head]; for a CNN of its own channels and on its own,
            often finer, grid.
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
    def attention_heads(self) -> int:
        """Heads of each block of a plain ViT."""
        return int(self.model.blocks[0].attn.num_heads)

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
                images, indices=indices, norm=self._norm, output_fmt="NCHW", intermediates_only=True, **settings
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

    def require_side(self, side: int, name: str) -> None:
        """Refuse a training view that the network cannot take, whatever the reason is.

        Args:
            side: Of the view, in pixels.
            name: The network, for the message.

        Raises:
            InputError: It cannot.
        """
        if self.is_vit:
            require_multiple(side, self.stride, name)
        try:
            self._grid(side)
        except _UNFIT as error:
            wanted = f"a multiple of {self.stride}" if side % self.stride else "a smaller one"
            raise InputError(
                f"--crop {side}: {name} does not take images of that size ({_first_line(error)}); "
                f"use {wanted}, or another --backbone"
            ) from error

    def _probe(self, name: str) -> tuple[int, int | None, int]:
        """Channels of the last map and of the earlier one, and the stride of the last.

        Raises:
            InputError: There is no map, images of one size alone are taken, or the grid has no stride.
        """
        if self.is_vit:
            side = 2 * int(self.model.patch_embed.feat_ratio())
            try:
                last, earlier = self._grid(side)
            except _UNFIT as error:
                raise InputError(_useless(name, error)) from error
            return last[1], None if earlier is None else earlier[1], side // last[2]
        shapes = self._grids(name)
        (side, (last, earlier)), (size, (wide, _)) = shapes.items()
        grids = f"{last[2]} x {last[3]} cells at {side} pixels, {wide[2]} x {wide[3]} at {size}"
        if wide[2] <= last[2]:
            raise InputError(
                f"{name} gives maps whose grid does not grow with the image ({grids}); choose a CNN or a plain ViT"
            )
        stride = size // wide[2]
        if not all(self._divides(stride, cells, shapes) for cells in (2, 4)):
            raise InputError(
                f"{name} gives maps that do not cover the whole image ({grids}), as not all of its convolutions pad; "
                "choose a CNN whose convolutions do, or a plain ViT"
            )
        return last[1], None if earlier is None else earlier[1], stride

    def _divides(self, stride: int, cells: int, known: Mapping[int, tuple[torch.Size, torch.Size | None]]) -> bool:
        """Whether an image of so many strides has as many cells; a stride of 7 or 14 divides no power of two."""
        side = cells * stride
        try:
            shape = known[side][0] if side in known else self._grid(side)[0]
        except _UNFIT:
            return False
        return shape[2] == cells

    def _grids(self, name: str) -> dict[int, tuple[torch.Size, torch.Size | None]]:
        """The shapes of both maps at two sides of an image, the smallest two that the model takes."""
        for sides in ((64, 128), (128, 256)):
            try:
                return {side: self._grid(side) for side in sides}
            except _UNFIT as error:
                found = error
        own = [int(side) for side in self.model.pretrained_cfg["input_size"][1:]]
        try:
            self._grid(own[0])
        except _UNFIT:
            raise InputError(_useless(name, found)) from found
        raise InputError(
            f"{name} takes images of {own[1]} x {own[0]} pixels, and not of any size ({_first_line(found)}); "
            "choose a CNN or a plain ViT"
        ) from found

    @torch.no_grad()
    def _grid(self, side: int) -> tuple[torch.Size, torch.Size | None]:
        """The shapes of the last map and the earlier one of an image of a side; random numbers stay as they are."""
        training, device = self.training, next(self.model.parameters()).device
        self.eval()
        images = torch.zeros(1, self.in_chans, side, side, device=device)
        try:
            features, earlier = self.forward(images)
        except AssertionError as error:
            if not self._norm or "normalization of features" not in str(error):
                raise
            self._norm = False  # hiera's norm belongs to its head alone
            features, earlier = self.forward(images)
        finally:
            self.train(training)
        return features.shape, None if earlier is None else earlier.shape


def _first_line(error: BaseException) -> str:
    """What a library says, without its traceback; perhaps nothing but the kind of the error."""
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__


def _useless(name: str, error: BaseException) -> str:
    return f"{name} gives no feature maps that can be used here ({_first_line(error)}); choose a CNN or a plain ViT"


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
