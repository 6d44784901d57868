"""The memory order of images and weights: channels last, which is quicker, where training in it was tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

TRIED = (
    "convmixer", "convnext", "cpubone", "csatv2", "cspnet", "cspnext", "davit", "deit", "densenet", "dla", "dpn",
    "edgenext", "efficientnet", "efficientvim", "efficientvit_mit", "efficientvit_msra", "eva", "fasternet",
    "focalnet", "gemma4_vit", "ghostnet", "hardcorenas", "hgnet", "hieradet_sam2", "hrnet", "iformer",
    "inception_next", "lcnetv2", "lowformer", "mambaout", "metaformer", "mobilenetv3", "mobilenetv5", "mobilevit",
    "mvitv2", "naflexvit", "nasnet", "nextvit", "nfnet", "pnasnet", "pvt_v2", "qwen3_vit", "rdnet", "regnet",
    "repghost", "repvit", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sequencer",
    "shvit", "sknet", "starnet", "swiftformer", "swin_transformer", "swin_transformer_v2", "tiny_vit", "tresnet",
    "twins", "vgg", "vision_transformer", "vision_transformer_hybrid", "vision_transformer_sam", "vovnet",
    "xception", "xception_aligned", "xcit",
)  # fmt: skip
"""The modules of timm a small member of which trains in it on a processor, with the results of the usual order, as
benchmarks/results/memory_order.json says."""

_TOO_FEW = 8
"""Input channels below which torch 2.14 writes past the end of a block on the way back through a strided convolution
of 1 x 1 pixels in that order, as in the stems of FastViT, MobileOne and RepVGG: the process ends, now or later."""


def picks_channels_last(
    wanted: bool | None,  # noqa: FBT001 - the value of a setting
    network: nn.Module,
    architecture: Mapping[str, Any],
    device: torch.device,
) -> bool:
    """Whether a network computes in the channels-last memory order.

    Args:
        wanted: Value of ``--channels-last``; None chooses: on a processor by what was tried, elsewhere always.
        network: That is to be trained.
        architecture: As of ``timm_models.describe_backbone``.
        device: Where to compute.
    """
    if wanted is not None:
        return wanted
    if device.type != "cpu":
        return True
    config = architecture.get("backbone_config")
    name: str = config["architecture"] if config else architecture["backbone"]
    tried = timm.models.is_model_in_modules(name.split(".")[0], TRIED)
    return tried and not any(_is_at_fault(module) for module in network.modules())


def _is_at_fault(module: nn.Module) -> bool:
    """Whether torch's backward pass of a convolution spoils memory, in this order."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.groups == 1
        and 1 < module.in_channels < _TOO_FEW
    )
