"""Any timm backbone as a feature extractor: its last feature map and an earlier one."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import timm
import torch
from huggingface_hub import constants as hub
from torch import Tensor, nn

from pseudolabel.artefacts import Input, open_artefact, read_header
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError
from pseudolabel.options.fields import nearest

VIT_MODULES = ("vision_transformer", "deit", "eva")
"""The modules of timm that define plain ViTs: one width, one patch grid, blocks in a row."""

TIMM_PREFIXES = ("backbone.model.", "network.encoder.model.")
"""Where the networks of this package keep their timm model among their weights."""

_MOST_SCORES = 4 * 2**20
"""Of a block's attention in training on a processor: below, matrix products are quicker than the fused operation, whose
way back is slow there (benchmarks/speed/attention.py)."""

_PATIENCE = 5.0  # seconds for a connection to the place of timm's weights


class Backbone(nn.Module):
    """A timm model without its classifier.

    Args:
        name: Name of a timm model.
        output_stride: Stride of a CNN's last map, by dilation; None keeps the model's own.
        auxiliary_block: Negative index of the ViT block whose tokens are given out too; None gives none. CNNs have no
            use for it.
        auxiliary_stage: Negative index of the CNN's stage whose map is given out too; None gives none. Plain ViTs have
            no use for it.
        pretrained: Let timm download its weights.

    Attributes:
        channels: Channels of the last map.
        auxiliary_channels: Channels of the earlier map, or None.
        stride: Pixels of the image per cell of the last map.
        depth: Blocks of a plain ViT, stages of a CNN.
        mean, std: The normalisation that the pretrained weights expect, for pixels in [0, 1].

    Raises:
        InputError: No such model, or it cannot do what is asked.
        PseudolabelError: The weights could not be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int | None = None,
        auxiliary_block: int | None = None,
        auxiliary_stage: int | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        require_model(name)
        self.is_vit = is_plain_vit(name)
        settings: dict[str, Any] = {"dynamic_img_size": True} if self.is_vit else {}
        if output_stride is not None and self.is_vit:
            raise InputError(f"--output-stride is for CNNs; {name} is a plain ViT with a fixed patch size")
        if output_stride is not None:
            settings["output_stride"] = output_stride
        model: Any = _create(name, pretrained=pretrained, settings=settings)
        self.model = model
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
                f"{name} takes only one input size in timm ({cause}); choose a CNN or a plain ViT"
            ) from error
        self.mean = tuple(float(value) for value in model.pretrained_cfg["mean"])
        self.std = tuple(float(value) for value in model.pretrained_cfg["std"])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of normalised images.

        Args:
            images: float (B, 3, H, W), H and W multiples of the stride for a ViT.

        Returns:
            The last map (B, C, h, w) and the earlier one or None: (B, C, h, w) for a ViT, of its own channels and on
            its own, often finer, grid for a CNN.
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
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=indices, norm=True, output_fmt="NCHW", intermediates_only=True, **settings
        )
        return maps

    def _attends_to_few(self, images: Tensor) -> bool:
        """Whether the scores of one block's attention take little memory, when they are stored for the way back."""
        cells = (images.shape[2] // self.stride) * (images.shape[3] // self.stride)
        return all(len(images) * module.num_heads * cells**2 <= _MOST_SCORES for module in self._attentions)

    @torch.no_grad()
    def _probe(self) -> tuple[int, int | None, int]:
        side = 64 if not self.is_vit else self.model.patch_embed.patch_size[0] * 2
        self.model.eval()
        features, earlier = self.forward(torch.zeros(1, 3, side, side))
        self.model.train()
        channels = None if earlier is None else int(earlier.shape[1])
        return int(features.shape[1]), channels, side // int(features.shape[2])


def is_plain_vit(name: str) -> bool:
    """Whether timm's model of this name is a plain ViT."""
    return bool(timm.models.is_model_in_modules(name.split(".")[0], VIT_MODULES))


def require_model(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InputError: The line names the nearest known one.
    """
    if not timm.is_model(name.split(".")[0]):
        raise InputError(f"timm has no model {name!r}{nearest(name, timm.list_models())}; see timm.list_models()")


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


def initialise(model: nn.Module, weights: Path | None, frozen: float) -> tuple[Input, ...]:
    """Give a timm model its initial weights, if a file of them is given, and freeze its first part.

    Args:
        model: As timm made it.
        weights: As for ``load_weights``.
        frozen: As the share of ``freeze``.

    Returns:
        What was read.
    """
    inputs: tuple[Input, ...] = ()
    if weights is not None:
        inputs = (weights_input(weights),)
        load_weights(model, weights)
    freeze(model, frozen)
    return inputs


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a timm model from a .safetensors file of timm's keys or from a checkpoint artefact of this package.

    Raises:
        ArtefactError: The file lacks parameters of this model or has them in other shapes.
    """
    stored = _read_weights(path)
    wanted = _without_classifier(model)
    # timm wraps some feature extractors in a module called model
    source = {name: name if name in stored else name.removeprefix("model.") for name in wanted}
    missing = [name for name in wanted if source[name] not in stored]
    if missing:
        raise ArtefactError(
            f"{path} lacks {len(missing)} of the backbone's {len(wanted)} weights (first: {missing[0]}); "
            "is it for another --backbone?"
        )
    for name, tensor in wanted.items():
        shape = tuple(stored[source[name]].shape)
        if shape != tuple(tensor.shape):
            raise ArtefactError(
                f"{path}: {name} has shape {shape}, the backbone wants {tuple(tensor.shape)}; "
                "is it for another --backbone?"
            )
    model.load_state_dict({name: stored[source[name]] for name in wanted}, strict=False)  # all but the classifier


@contextmanager
def downloading(name: str, *, pretrained: bool, failures: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Say in one line that timm's weights could not be had; what the downloader logs of its attempts is left out.

    Without a network the downloader would try each file for half a minute. Where no connection can be made at all, it
    is put into its own offline mode instead, in which what is cached serves and all else fails at once.

    Args:
        name: Name of a timm model.
        pretrained: Whether its weights are wanted; where they are not, errors pass as they are.
        failures: What a failed download raises.

    Raises:
        PseudolabelError: The weights could not be downloaded.
    """
    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, hub.HF_HUB_OFFLINE
    alone = pretrained and not offline and _unreachable(hub.ENDPOINT)
    logger.setLevel(logging.ERROR)
    hub.HF_HUB_OFFLINE = offline or alone
    try:
        yield
    except failures as error:
        if not pretrained:
            raise
        cause = str(error).split("\n", 1)[0][:160]
        cause = f"no connection to {hub.ENDPOINT}, and they are not cached" if alone else cause
        raise PseudolabelError(
            f"timm could not load its weights for {name} ({cause}); pass --weights FILE.safetensors or --no-pretrained"
        ) from error
    finally:
        logger.setLevel(level)
        hub.HF_HUB_OFFLINE = offline


def _unreachable(address: str) -> bool:
    """Whether no connection can be made; False behind a proxy, which alone can tell."""
    parts = urlsplit(address)
    if {parts.scheme, "all"} & set(getproxies()):
        return False
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        return True
    return False


def _without_classifier(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm model but for its classifier, which some decoders leave in and nobody uses."""
    settings: Any = getattr(model, "pretrained_cfg", None) or {}
    heads = settings.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(prefixes)}


def weights_input(path: Path) -> Input:
    """A weights file as one input of an artefact."""
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist; pass --weights FILE.safetensors or a checkpoint .h5")
    if path.suffix == ".h5":
        return Input("checkpoint", path.resolve().as_posix(), read_header(path, "checkpoint").digest)
    with path.open("rb") as handle:
        return Input("weights", path.resolve().as_posix(), hashlib.file_digest(handle, "sha256").hexdigest())


def weights_oracle(path: Path | None) -> tuple[str, ...]:
    """Why what starts from a weights file is no weakly supervised result either; of a checkpoint artefact alone."""
    return read_header(path, "checkpoint").oracle if path is not None and path.suffix == ".h5" else ()


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".h5":
        with open_artefact(path, "checkpoint") as artefact:
            group = artefact.file["weights"]
            found = [(name, prefix) for name in group for prefix in TIMM_PREFIXES if name.startswith(prefix)]
            return {name.removeprefix(prefix): torch.from_numpy(np.asarray(group[name][()])) for name, prefix in found}
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is neither .safetensors nor a checkpoint .h5; pickled weights are not read")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path} is not a readable .safetensors file: {error}") from error


def _create(name: str, *, pretrained: bool, settings: Mapping[str, Any]) -> nn.Module:
    with downloading(name, pretrained=pretrained, failures=(OSError, RuntimeError, ValueError)):
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **settings)
    return model
