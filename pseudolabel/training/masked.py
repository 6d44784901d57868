"""What trainings on masks share: views of photographs with their masks, what masks say, the encoder to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.artefacts import Header, MapsReader, open_artefact
from pseudolabel.artefacts.header import EXTERNAL
from pseudolabel.data import Record, read_image, reopen_dataset
from pseudolabel.data.augmentation import random_crop
from pseudolabel.data.inputs import unreadable
from pseudolabel.data.records import IGNORE
from pseudolabel.data.weak.supervision import ANNOTATION
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.timm_models import describe_backbone
from pseudolabel.models.weights import Weights, choose_weights, trained_for
from pseudolabel.options import MaskTrainingOptions
from pseudolabel.runtime.progress import Progress
from pseudolabel.training.samples import sample_rng, split_records

_KEPT = (*ANNOTATION, EXTERNAL)
"""What a network's own protocol states of the masks that it learnt from, besides their making in words."""


class LabelledPhotographs(NamedTuple):
    """The photographs that a masks artefact labels.

    Attributes:
        path: Of the artefact.
        header: Its own.
        rows: Id of every image with a labelled pixel to its row.
        kept: Records to train on.
        held_out: Records that are kept from training.
        skipped: Id to reason of the images that cannot be used.
        unlabelled: How many images of the data set have no labelled pixel.
    """

    path: Path
    header: Header
    rows: dict[str, int]
    kept: tuple[Record, ...]
    held_out: tuple[Record, ...]
    skipped: dict[str, str]
    unlabelled: int


def open_labelled(options: MaskTrainingOptions, progress: Progress) -> LabelledPhotographs:
    """Find the photographs of ``options.masks``, and part them.

    Raises:
        ArtefactError: It is no masks artefact.
        DatasetError: The data set is not where it was.
        InputError: Less than two images can be used.
    """
    path = options.masks / "masks.h5" if options.masks.is_dir() else options.masks
    header, rows = labelled_rows(path)
    dataset = reopen_dataset(header.dataset, root=options.root)
    labelled = tuple(record for record in dataset.records if record.id in rows)
    skipping = options.on_error == "skip"
    skipped = unreadable(labelled, MaskCrops(path, rows, labelled, options).pair, progress) if skipping else {}
    records = tuple(record for record in labelled if record.id not in skipped)
    if len(records) < 2:
        raise InputError(f"{path} labels {len(records)} usable images of split {dataset.split}; training needs two")
    kept, held_out = split_records(records, options.holdout, options.seed)
    return LabelledPhotographs(path, header, rows, kept, held_out, skipped, len(dataset.records) - len(labelled))


class MaskCrops:
    """Random views of photographs with their masks; sample (epoch, index) is always the same.

    The masks artefact is opened in each loader process when it is first needed.
    """

    def __init__(
        self, masks: Path, rows: dict[str, int], records: tuple[Record, ...], options: MaskTrainingOptions
    ) -> None:
        self._masks, self._rows, self._records, self._options = masks, rows, records, options
        self._reader: MapsReader | None = None

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # an open HDF5 file does not travel to another process

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record, options = self._records[index], self._options
        view, labels = random_crop(
            *self.pair(record),
            sample_rng(options.seed, epoch, index),
            crop=options.crop,
            area=options.crop_area,
            jitter=options.jitter,
        )
        return {"id": record.id, "image": view, "labels": labels}

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Photograph uint8 (H, W, 3) and mask uint8 (H, W) of one record."""
        if self._reader is None:
            self._context = open_artefact(self._masks, "masks")
            self._reader = MapsReader(self._context.__enter__())
        image, labels = read_image(record.image, record.decoding), self._reader.labels(self._rows[record.id])
        if image.shape[:2] != labels.shape:
            raise DatasetError(
                f"{record.image} is {image.shape[0]} x {image.shape[1]} pixels, its mask in {self._masks} "
                f"{labels.shape[0]} x {labels.shape[1]}; has the photograph changed since?"
            )
        return image, labels


def labelled_rows(path: Path) -> tuple[Header, dict[str, int]]:
    """The header of a masks artefact, and the row of every image in which some pixel is labelled."""
    with open_artefact(path, "masks") as artefact:
        reader = MapsReader(artefact)
        ids = reader.images.ids
        usable = (row for row, name in enumerate(ids) if name not in reader.skipped)
        return artefact.header, {ids[row]: row for row in usable if (reader.labels(row) != IGNORE).any()}


def describe_masks(count: int, parent: Header) -> str:
    """What a segmenter was trained on, in words that its scores state."""
    stated = {name: value for name, value in parent.protocol.items() if name not in _KEPT}
    made = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in stated.items())
    return f"{count} masks ({made or 'of unknown making'})"


def labelled_at(parent: Header) -> dict[str, Any]:
    """What the labels behind the masks cost to draw and the external models behind them, where they say so."""
    return {name: parent.protocol[name] for name in _KEPT if name in parent.protocol}


def choose_encoder(options: MaskTrainingOptions, parent: Header, path: Path) -> tuple[dict[str, Any], Weights]:
    """The backbone's part of an architecture, and the initial weights: what the options say, else what made the masks.

    Args:
        options: Of the training.
        parent: The header of the masks.
        path: Where they lie, for the message.

    Raises:
        InputError: Neither names a backbone.
    """
    made_by = parent.network.get("backbone")
    backbone = options.backbone or made_by
    if backbone is None:
        raise InputError(f"{path} names no network that made it; pass --backbone")
    known = parent.network if backbone == made_by else {}
    channels = options.in_chans or len(known.get("mean", "rgb"))
    architecture = {
        **describe_backbone(backbone, channels, known.get("backbone_config")),
        "output_stride": known.get("output_stride"),
    }
    stored = known.get("weights")
    file = options.weights or (Path(stored) if stored else None)
    weights = choose_weights(file, pretrained=options.pretrained and known.get("pretrained", True))
    return architecture | trained_for(weights), weights
