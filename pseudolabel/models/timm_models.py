"""Models of timm by name: of its registry, of a repository on the Hugging Face Hub, or of a folder in timm's format.

A model of a repository or a folder is described by its ``config.json``. A checkpoint keeps what matters of it, so that
later stages build the model without hub or folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models._hub import load_model_config_from_path
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pseudolabel.errors import InputError
from pseudolabel.models.hub import downloading, hub_file
from pseudolabel.options.fields import nearest

PLAIN_VITS = (VisionTransformer, Eva)
"""The classes of timm that are plain ViTs: one width, one patch grid, blocks in a row."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels in [0, 1]."""

_VIT_MODULES = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva")
"""The modules of timm whose models take images of every size only if they are told to when they are built."""

_WINDOWED_MODULES = ("swin_transformer", "swin_transformer_v2")
"""As those, by another setting."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What timm calls a model's weights."""

_KEPT = ("input_size", "fixed_input_size", "mean", "std", "first_conv", "classifier", "pool_size")
"""What a model is built and used by of ``pretrained_cfg``; what is left out are names of classes, sources, notes."""


_FAILURES = (OSError, RuntimeError, ValueError)
"""What timm and the hub's library raise."""


def describe_backbone(name: str, in_chans: int = 3, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an ``architecture`` attribute says of a timm model, as JSON data.

    Args:
        name: As of ``--backbone``.
        in_chans: Channels of its input.
        config: Its ``backbone_config``, where it is known already.

    Returns:
        ``backbone``, its name, that of a folder as an absolute path. Where they are needed, ``in_chans``, if it is not
        3, and ``backbone_config``: ``architecture``, ``model_args`` and ``pretrained_cfg`` of its ``config.json``.

    Raises:
        InputError: There is no such model.
        PseudolabelError: The hub cannot be reached.
    """
    channels = {} if in_chans == 3 else {"in_chans": in_chans}
    if config is not None:
        return {"backbone": name, "backbone_config": dict(config), **channels}
    source, found = parse_name(name)
    if source is None:
        return {"backbone": name, **channels}
    if source == "local-dir":
        name, folder = f"local-dir:{Path(found).resolve()}", Path(found)
        if not (folder / "config.json").is_file():
            raise InputError(f"--backbone {name}: the folder has no config.json, as timm's save_for_hf writes it")
    else:
        with downloading(
            f"the configuration of {name}", "pass local-dir:FOLDER, or the name of a timm model", _FAILURES
        ):
            folder = hub_file(found, ("config.json",)).parent
    return {"backbone": name, "backbone_config": _read_config(name, folder), **channels}


def parse_name(name: str) -> tuple[str | None, str]:
    """Where a model comes from, and its name there.

    Args:
        name: As of ``--backbone``.

    Returns:
        None and the name itself; or ``hf-hub`` and ORG/MODEL; or ``local-dir`` and a folder.

    Raises:
        InputError: timm knows no such name; the line names the nearest known one.
    """
    try:
        source, found = timm.models.parse_model_name(name)
    except (ValueError, AssertionError):  # the one as of timm 1.0.28
        source, found = None, ""
    if not found or (source is None and found != name):
        raise InputError(f"--backbone {name!r} is neither a timm model nor hf-hub:ORG/MODEL nor local-dir:FOLDER")
    if source is None:
        _require_model(found)
    return source, found


def creation(architecture: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What ``timm.create_model`` takes to build a model without weights.

    Args:
        architecture: As of ``describe_backbone``; of a model of timm's registry, ``backbone`` is enough.

    Returns:
        The name of the architecture in timm's registry; keyword arguments. Plain ViTs, Swin and Swin V2 take
        images of every size.

    Raises:
        InputError: This timm has no such model.
    """
    config = architecture.get("backbone_config")
    name = config["architecture"] if config else architecture["backbone"]
    _require_model(name)
    settings = {"pretrained_cfg": dict(config["pretrained_cfg"]), **config["model_args"]} if config else {}
    settings["in_chans"] = architecture.get("in_chans", 3)
    if built_as_vit(architecture):
        settings["dynamic_img_size"] = True
    elif timm.models.is_model_in_modules(name.split(".")[0], _WINDOWED_MODULES):
        settings["strict_img_size"] = False
    return name, settings


def built_as_vit(architecture: Mapping[str, Any]) -> bool:
    """Whether timm builds a plain ViT, by the module that does; its class, which says it for certain, comes later."""
    config = architecture.get("backbone_config")
    name: str = config["architecture"] if config else architecture["backbone"]
    return bool(timm.models.is_model_in_modules(name.split(".")[0], _VIT_MODULES))


def pretrained_file(name: str) -> Path | None:
    """The file of a model's own weights: of its folder, or of the hub, downloaded if it is not cached.

    Args:
        name: As of ``--backbone``.

    Returns:
        None: The weights are elsewhere, where timm alone finds them, or nowhere.

    Raises:
        InputError: There is no such model, or its folder has no weights.
        PseudolabelError: The weights could not be downloaded.
    """
    source, found = parse_name(name)
    if source == "local-dir":
        existing = [Path(found) / file for file in _WEIGHTS if (Path(found) / file).is_file()]
        if not existing:
            raise InputError(
                f"--backbone {name}: the folder has no {' or '.join(_WEIGHTS)}; pass --weights or --no-pretrained"
            )
        return existing[0].resolve()
    files: tuple[str, ...] = _WEIGHTS
    if source is None:
        settings = timm.get_pretrained_cfg(found)
        if settings is None or not settings.hf_hub_id:
            return None
        found = settings.hf_hub_id
        files = (settings.hf_hub_filename,) if settings.hf_hub_filename else _WEIGHTS
    with loading(name):
        return hub_file(found, files)


def loading(name: str) -> AbstractContextManager[None]:
    """While it lasts, a failed download of a model's weights is one line."""
    return downloading(f"its weights for {name}", "pass --weights FILE.safetensors or --no-pretrained", _FAILURES)


def statistics(model: nn.Module, architecture: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by which a model's input is normalised, for pixels in [0, 1].

    Args:
        model: timm's, which knows what its pretrained weights expect.
        architecture: As of ``describe_backbone``; with ``normalisation`` ``imagenet`` it is ImageNet's.

    Returns:
        Each a value a channel. Where the weights expect another number of channels, all have their average. [ours]
    """
    if architecture.get("normalisation") == "imagenet":
        return IMAGENET
    in_chans = architecture.get("in_chans", 3)
    settings: Any = model.pretrained_cfg
    both = [tuple(float(value) for value in settings[name]) for name in ("mean", "std")]
    mean, std = (values if len(values) == in_chans else (sum(values) / len(values),) * in_chans for values in both)
    return mean, std


class FixedPositions(VisionTransformer):
    """A plain ViT whose position embedding is a constant, resized bicubically without antialiasing.

    So does CoSA's released code [code: position-embedding]; timm's resizing antialiases, and its bicubic kernel is
    another one.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        assert self.pos_embed is not None  # as fix_positions has looked
        assert self.cls_token is not None
        batch, rows, columns, channels = x.shape
        token, cells = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        before = self.patch_embed.grid_size
        cells = cells.reshape(1, *before, channels).permute(0, 3, 1, 2)
        cells = F.interpolate(cells, (rows, columns), mode="bicubic").flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.reshape(batch, -1, channels)], dim=1)
        found: Tensor = self.pos_drop(tokens + torch.cat([token, cells], dim=1))
        return found


def fix_positions(model: nn.Module, name: str) -> None:
    """Make a model's position embedding a constant, as ``FixedPositions`` says, in place.

    Raises:
        InputError: It is no plain ViT with a class token and one learnt position embedding.
    """
    if (
        type(model) is not VisionTransformer
        or model.pos_embed is None
        or model.cls_token is None
        or model.num_prefix_tokens != 1
        or model.no_embed_class
    ):
        raise InputError(
            f"--position-embedding frozen: {name} is no plain ViT with a class token and a learnt position embedding; "
            "use trained"
        )
    model.__class__ = FixedPositions
    model.pos_embed.requires_grad = False


def _require_model(name: str) -> None:
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise InputError(f"timm has no model {name!r}{nearest(name, timm.list_models())}; see timm.list_models()")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise InputError(f"timm has no weights {name!r}; of {architecture} it has {known}") from error


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    """A model's ``config.json``, as far as the model depends on it."""
    try:
        settings, architecture, arguments = load_model_config_from_path(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--backbone {name}: config.json is not one of timm's ({error!r})") from error
    if not timm.is_model(architecture):
        raise InputError(
            f"--backbone {name}: config.json names the architecture {architecture!r}, which this timm does not have"
        )
    kept = {key: settings[key] for key in _KEPT if settings.get(key) is not None}
    return {"architecture": architecture, "model_args": dict(arguments), "pretrained_cfg": kept}
