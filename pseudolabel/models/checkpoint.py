"""Network weights as HDF5 datasets. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pseudolabel.artefacts import Artefact, Header, open_artefact
from pseudolabel.errors import ArtefactError
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.segmenter import build_segmenter

BUILDERS = {"cam": build_cam_network, "segmenter": build_segmenter}


def weight_arrays(weights: Mapping[str, Tensor], group: str = "weights") -> dict[str, np.ndarray]:
    """A state dictionary as datasets of an artefact."""
    return {f"{group}/{name}": tensor.detach().cpu().numpy() for name, tensor in weights.items()}


def read_weights(artefact: Artefact, group: str = "weights") -> dict[str, Tensor]:
    """A state dictionary from the datasets of an artefact."""
    return {name: torch.from_numpy(np.asarray(dataset[()])) for name, dataset in artefact.file[group].items()}


def load_network(path: Path, kind: str) -> tuple[nn.Module, Header]:
    """Build the network of a checkpoint artefact and fill in its weights.

    Args:
        path: The artefact.
        kind: ``cam`` or ``segmenter``.

    Raises:
        ArtefactError: It is no checkpoint, or of another kind of network, or its weights do not fit.
    """
    with open_artefact(path, "checkpoint") as artefact:
        architecture = artefact.header.facts.get("architecture", {})
        if architecture.get("type") != kind:
            found = architecture.get("type", "unknown")
            raise ArtefactError(
                f"{path} holds a {found} network (made by {artefact.header.stage}); wanted a {kind} network"
            )
        network = BUILDERS[kind](architecture)
        try:
            network.load_state_dict(read_weights(artefact))
        except RuntimeError as error:
            first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
            raise ArtefactError(f"{path}: the weights do not fit the architecture it states: {first}") from error
        return network, artefact.header
