"""Checkpoints of segmenters that nobody has trained, whose predictions vary all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.models.segmenter import DecoderSegmenter, build_segmenter

CLASSES = ("background", "shirt", "shoe", "hat")
RESNET_FPN = {"backbone": "test_resnet", "decoder": "fpn"}


def write_segmenter(
    path: Path, *, crop: int = 32, flat: bool = False, dataset: dict[str, Any] | None = None, **network: Any
) -> Path:
    """A segmenter of random weights, with a last layer so strong that images have several classes; if flat, so weak
    that all of them are equally likely everywhere."""
    architecture = {
        "type": "segmenter",
        "backbone": "test_vit",
        "decoder": "largefov",
        "output_stride": None,
        "classes": len(CLASSES),
        **network,
    }
    torch.manual_seed(3)
    built = build_segmenter(architecture)
    last: Any = built.network.segmentation_head[0] if isinstance(built, DecoderSegmenter) else built.head.classifier
    nn.init.normal_(last.weight, std=0.0 if flat else 3.0 if last.in_channels < 512 else 40.0)
    header = Header(
        "checkpoint",
        "train-segmenter",
        {},
        CLASSES,
        dataset=dataset or {"dataset": "folder", "root": "/gone", "split": "train", "tag_source": "csv"},
        network={"backbone": architecture["backbone"], "mean": built.mean, "std": built.std, "crop": crop},
        facts={"architecture": architecture},
    )
    return write_artefact(path, header, weight_arrays(built.state_dict()), CostMeter())


def photograph(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A photograph of (H, W) pixels with coloured squares of eight pixels; its ending says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    Image.fromarray(cells.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]).save(path)
    return path
