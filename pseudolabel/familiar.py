"""Whether images that are scored are images that the network behind their masks was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pseudolabel.artefacts import Header
from pseudolabel.data import Dataset, Record, load_dataset
from pseudolabel.errors import InputError
from pseudolabel.supervision import behind


def count_trained_on(parents: Mapping[Path, Header], dataset: Dataset, records: Sequence[Record]) -> int | None:
    """How many images the nearest network behind masks was trained on.

    Args:
        parents: Path to header of the masks, and of what is known to be behind them.
        dataset: Of the images, as it is now.
        records: The images.

    Returns:
        None where that is not known: no checkpoint is behind the masks any more, it was trained on another data set, or
        its list is gone. Splits of COCO share no image and are not read for this, which would take long.
    """
    checkpoint = next((header for _, header in behind(parents) if header.kind == "checkpoint"), None)
    masks = next(iter(parents.values()), None)
    if checkpoint is None or masks is None or dataset.name == "coco":
        return None
    spec = checkpoint.dataset
    if any(spec.get(name) != masks.dataset.get(name) for name in ("dataset", "root")):
        return None
    plain = {"dataset": dataset.name, "root": str(dataset.root), "split": spec.get("split"), "tag_source": "none"}
    try:
        listed = load_dataset(plain).records
    except InputError:
        return None
    trained = {record.id for record in listed} - set(checkpoint.facts.get("held_out") or ())
    return sum(record.id in trained for record in records)
