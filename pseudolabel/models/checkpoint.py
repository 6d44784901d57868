"""Network weights as HDF5 datasets. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from pseudolabel.artefacts import Artefact, Header, open_artefact, require_unaltered
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.cosa import CosaNetwork, build_cosa_network
from pseudolabel.models.pair import PairNetwork, build_pair
from pseudolabel.models.pair_affinity import build_pair_affinity
from pseudolabel.models.scribble import build_scribble_network
from pseudolabel.models.segmenter import build_segmenter
from pseudolabel.runtime.formatting import either

Kind = Literal["cam", "segmenter", "affinity"]
Which = Literal["teacher", "student", "first", "second", "both"]

BUILDERS = {
    "cam": build_cam_network,
    "affinity": build_pair_affinity,
    "segmenter": build_segmenter,
    "scribble": build_scribble_network,
    "semi": build_pair,
    "cosa": build_cosa_network,
}
GROUPS: Mapping[str | None, str] = {
    "teacher": "teacher", "student": "weights", "first": "weights", "second": "second", None: "weights",
}  # fmt: skip
"""Where the weights of each network stand."""
TWO: Mapping[str, tuple[Which, ...]] = {"cosa": ("teacher", "student"), "semi": ("both", "first", "second")}
"""What can be had from the types of checkpoint that hold two networks, the usual choice first."""


def weight_arrays(weights: Mapping[str, Tensor], group: str = "weights") -> dict[str, np.ndarray]:
    """A state dictionary as datasets of an artefact."""
    return {f"{group}/{name}": tensor.detach().cpu().numpy() for name, tensor in weights.items()}


def read_weights(artefact: Artefact, group: str = "weights") -> dict[str, Tensor]:
    """A state dictionary from the datasets of an artefact.

    Raises:
        ArtefactError: It has no such group, or its data are not those that were written, or no finite numbers.
    """
    require_unaltered(artefact)
    if group not in artefact.file:
        raise ArtefactError(
            f"{artefact.path}: {group!r} is missing from this {artefact.header.kind} artefact; make it again"
        )
    return {name: torch.from_numpy(finite(artefact, dataset)) for name, dataset in artefact.file[group].items()}


def finite(artefact: Artefact, dataset: h5py.Dataset) -> np.ndarray:
    """One tensor of a network.

    Raises:
        ArtefactError: It has a value that is NaN or infinite.
    """
    values = np.asarray(dataset[()])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ArtefactError(f"{artefact.path}: {dataset.name[1:]!r} holds NaN or infinity; train it again")
    return values


def load_network(path: Path, kind: Kind, which: Which | None = None) -> tuple[nn.Module, Header]:
    """Build the network of a checkpoint artefact and fill in its weights.

    A network of train-cosa serves as either kind: as a CAM network that it is, and by its segmentation head.

    Args:
        path: The artefact.
        kind: What is wanted: ``cam`` gives a ``CamNetwork``, ``segmenter`` an ``AnyPredictor``, ``affinity`` an
            ``AnyAffinity``.
        which: Of the two networks of train-cosa, by default the teacher, or of train-semi's ccvc, by default both,
            whose softmaxes are averaged. Other checkpoints hold one network.

    Returns:
        The network; the artefact's header, whose protocol also states which ``network`` it was if there are two.

    Raises:
        ArtefactError: It is no checkpoint, or of another kind of network, or its weights do not fit.
        InputError: It holds one network, and ``which`` was given, or two others.
    """
    with open_artefact(path, "checkpoint", serves=kind) as artefact:
        header = artefact.header
        architecture = header.facts["architecture"]
        found = architecture["type"]
        if found in TWO:
            which = which or TWO[found][0]
            if which not in TWO[found]:
                raise InputError(
                    f"{path} holds two networks (made by {header.stage}), none of which is the {which}; "
                    f"pass --network {either(TWO[found])}"
                )
            header = replace(header, protocol={**header.protocol, "network": which})
        elif which is not None:
            raise InputError(
                f"{path} holds a {found} network (made by {header.stage}) and no other; leave out --network {which}"
            )
        network = BUILDERS[found](architecture)
        try:
            if isinstance(network, PairNetwork):
                network.first.load_state_dict(read_weights(artefact, GROUPS["first"]))
                network.second.load_state_dict(read_weights(artefact, GROUPS["second"]))
            else:
                network.load_state_dict(read_weights(artefact, GROUPS[which]))
        except RuntimeError as error:
            first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
            raise ArtefactError(f"{path}: the weights do not fit the architecture it states: {first}") from error
    if kind == "segmenter" and isinstance(network, CosaNetwork):
        return network.segmenter(), header
    if isinstance(network, PairNetwork) and which != "both":
        return network.first if which == "first" else network.second, header
    return network, header
