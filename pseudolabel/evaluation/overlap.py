"""Overlap with the training set: how many scored images the network behind their masks has seen in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pseudolabel.artefacts import Header, open_artefact
from pseudolabel.data import Record
from pseudolabel.data.weak.supervision import behind

_PLACE = ("dataset", "root")
"""What ids of two artefacts must have in common to mean the same images."""


def count_trained_on(parents: Mapping[Path, Header], records: Iterable[Record]) -> int | None:
    """How many images the nearest network behind masks was trained on.

    Args:
        parents: Path to header of the masks, and of what is known to be behind them.
        records: The images that are scored.

    Returns:
        None where that is not known: no checkpoint is behind the masks any more, it was trained on another data set, or
        it does not say on which images.
    """
    checkpoint = next((item for item in behind(parents) if item[1].kind == "checkpoint"), None)
    if checkpoint is None:
        return None
    path, network = checkpoint
    masks = next(iter(parents.values()))
    if any(network.dataset.get(name) != masks.dataset.get(name) for name in _PLACE):
        return None
    with open_artefact(path, "checkpoint") as artefact:
        if "images/id" not in artefact.file:
            return None
        trained = set(artefact.file["images/id"].asstr()[:])
    return sum(record.id in trained for record in records)
