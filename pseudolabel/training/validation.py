"""Scores of a training while it goes on: of which records, how they are counted, what a choice by them is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pseudolabel.artefacts import Header
from pseudolabel.data import Dataset, Record, load_dataset, read_image
from pseudolabel.data.augmentation import resized
from pseudolabel.data.ground_truth import require_objects
from pseudolabel.errors import DatasetError
from pseudolabel.metrics.confusion import PixelCounter
from pseudolabel.metrics.scores import summarise
from pseudolabel.options import WatchedOptions
from pseudolabel.runtime.resizing import resize
from pseudolabel.training.image_tags import tag_vector

_BATCH = 32  # images that are looked at together

Predict = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""From photographs uint8 (B, S, S, 3) and tags float32 (B, C) to label maps (B, S, S) by name."""


def validation_records(
    options: WatchedOptions, dataset: Dataset, held_out: tuple[Record, ...], *, tagged: bool
) -> list[Record]:
    """The records whose masks score the training; none where no split is named.

    Args:
        options: Which split.
        dataset: That is trained on.
        held_out: The part of it that is kept from training.
        tagged: Whether the images need tags.

    Raises:
        DatasetError: There are none, one has no tags, or the first has no mask (the others' are read when needed), or
            no class is in any of their masks.
    """
    if options.validate_on is None:
        return []
    name = options.validate_on
    source = dataset if name == "held-out" else load_dataset(dataset.spec(), split=name)
    records = held_out if name == "held-out" else source.records
    untagged = [record.id for record in records if record.tags is None] if tagged else []
    if untagged or not records:
        found = f"{len(untagged)} images without tags (first: {untagged[0]})" if untagged else "no images"
        needed = "tags and masks" if tagged else "masks"
        raise DatasetError(f"--validate-on {name} has {found}; name a split whose images have {needed}, or none")
    source.read_mask(records[0])
    require_objects(source, records)
    return list(records)


def chosen_by(options: WatchedOptions, header: Header) -> Header:
    """The header, saying whether pixel masks chose what is kept."""
    if options.keep == "last":
        return header
    reason = f"state of training chosen by pixel masks of {options.validate_on}"
    return replace(
        header,
        oracle=(*header.oracle, reason),
        protocol={**header.protocol, "state": f"best on {options.validate_on} (pixel masks)"},
    )


def quick_scores(
    records: list[Record],
    classes: tuple[str, ...],
    crop: int,
    predict: Predict,
    read_ground_truth: Callable[[Record], np.ndarray],
    device: torch.device,
) -> dict[str, float]:
    """Quick scores of a training's state: whole images at the size of a training view.

    Args:
        records: What to look at.
        classes: Names, background first.
        crop: S, the side of a view.
        predict: From photographs and tags to label maps by name.
        read_ground_truth: A record's label map uint8 (S, S), 255 = does not count.
        device: Where to predict.

    Returns:
        mIoU in [0, 1] by the names of ``predict``, over all pixels of the records.
    """
    counter = PixelCounter(len(classes), boundary=None, ignored="background")
    tables: dict[str, np.ndarray] = {}
    for start in range(0, len(records), _BATCH):
        part = records[start : start + _BATCH]
        pixels = np.stack([resized(read_image(record.image, record.decoding), (crop, crop)) for record in part])
        tags = np.stack([tag_vector(record, len(classes) - 1) for record in part])
        found = predict(torch.from_numpy(pixels).to(device), torch.from_numpy(tags).to(device))
        truths = [read_ground_truth(record) for record in part]
        for name, labels in found.items():
            table = tables.setdefault(name, np.zeros((len(classes) + 1, len(classes) + 1, 4)))
            for truth, predicted in zip(truths, labels.to(torch.uint8).cpu().numpy(), strict=True):
                table += counter.table(truth, predicted)
    scores = {name: summarise(table, classes, "background", boundary=False) for name, table in tables.items()}
    return {name: float(score["miou"] or 0.0) for name, score in scores.items()}


def quick_segmentation(
    segment: Callable[[Tensor], Tensor], prepare: Callable[[Tensor], Tensor], crop: int, *, tagged: bool = False
) -> Predict:
    """What is scored of a segmenter, at one scale, not mirrored: ``miou``, and with the image tags ``miou_tags``.

    Args:
        segment: From normalised images float (B, 3, S, S) to logits (B, K, h, w).
        prepare: From photographs uint8 (B, S, S, 3) to its input.
        crop: S, the side of a view.
        tagged: Whether the images have tags.
    """

    def predict(photographs: Tensor, tags: Tensor) -> dict[str, Tensor]:
        logits = resize(segment(prepare(photographs)).float(), (crop, crop))
        found = {"miou": logits.argmax(dim=1)}
        return found | ({"miou_tags": within_tags(logits, tags).argmax(dim=1)} if tagged else {})

    return predict


def small_mask(dataset: Dataset, record: Record, side: int) -> np.ndarray:
    """A record's ground truth as uint8 (side, side), by the nearest pixel."""
    mask = Image.fromarray(dataset.read_mask(record))
    return np.array(mask.resize((side, side), Image.Resampling.NEAREST))


def within_tags(logits: Tensor, tags: Tensor) -> Tensor:
    """Logits (B, K, h, w), minus infinity for classes that tags (B, C), 0 where a class is absent, exclude."""
    absent = torch.nn.functional.pad(tags == 0, (1, 0), value=False)
    return logits.masked_fill(absent[:, :, None, None], -torch.inf)
