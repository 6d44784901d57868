"""Checkpoints of networks that nobody trained, for the tests of the stages that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.models.cosa import build_cosa_network
from pseudolabel.models.segmenter import build_segmenter
from tests.helpers.artefacts import synthetic

VIT, CNN = "test_vit.r160_in1k", "test_resnet.r160_in1k"


def cosa_architecture(backbone: str, classes: int) -> dict[str, Any]:
    """What ``build_cosa_network`` takes."""
    return {
        "type": "cosa",
        "backbone": backbone,
        "output_stride": None,
        "auxiliary_block": -3,
        "auxiliary_stage": -2,
        "pooling": "gmp",
        "embedding": 8,
        "classes": classes,
    }


def seeded(build: Callable[[dict[str, Any]], nn.Module], architecture: dict[str, Any], seed: int) -> nn.Module:
    """A network with random weights, the same ones every time."""
    torch.manual_seed(seed)
    return build(architecture)


def write_checkpoint(
    path: Path, stage: str, root: Path, architecture: dict[str, Any], arrays: Mapping[str, np.ndarray], **network: Any
) -> Path:
    """A checkpoint of a data set in VOC layout; ``network`` replaces entries of what it says of the network."""
    dataset = synthetic(root)
    half = (0.5, 0.5, 0.5)
    about = {"backbone": architecture["backbone"], "output_stride": None, "weights": None, "pretrained": False}
    header = Header(
        "checkpoint",
        stage,
        {},
        dataset.classes,
        dataset=dataset.spec(),
        network={**about, "mean": half, "std": half, "crop": 32, **network},
        facts={"architecture": architecture},
    )
    return write_artefact(path, header, arrays, CostMeter(), images=8)


def write_cosa(path: Path, root: Path, backbone: str = VIT, *, without: tuple[str, ...] = (), **network: Any) -> Path:
    """What train-cosa leaves, student and teacher as different as two seeds make them; ``without`` some datasets."""
    architecture = cosa_architecture(backbone, len(synthetic(root).classes) - 1)
    arrays = weight_arrays(seeded(build_cosa_network, architecture, 0).state_dict())
    arrays |= weight_arrays(seeded(build_cosa_network, architecture, 1).state_dict(), "teacher")
    arrays |= {"threshold/low": np.asarray(0.25), "threshold/high": np.asarray(0.55)}
    arrays |= {"curves/loss": np.linspace(1, 0.5, 4, dtype=np.float32)}
    kept = {name: array for name, array in arrays.items() if not name.startswith(without)}
    return write_checkpoint(path, "train-cosa", root, architecture, kept, **network)


def write_cam(path: Path, root: Path) -> Path:
    """What train-cam leaves."""
    architecture = cosa_architecture(VIT, len(synthetic(root).classes) - 1) | {"type": "cam"}
    weights = weight_arrays(seeded(build_cam_network, architecture, 0).state_dict())
    return write_checkpoint(path, "train-cam", root, architecture, weights)


def write_segmenter(path: Path, root: Path) -> Path:
    """What train-segmenter leaves."""
    architecture = {"type": "segmenter", "backbone": VIT, "decoder": "largefov", "output_stride": None}
    architecture["classes"] = len(synthetic(root).classes)
    weights = weight_arrays(seeded(build_segmenter, architecture, 0).state_dict())
    return write_checkpoint(path, "train-segmenter", root, architecture, weights)
