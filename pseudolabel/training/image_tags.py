"""What trainings that begin with a data set share: usable images, the tags as a vector and their score, the header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pseudolabel.artefacts import Header, Input, child_header
from pseudolabel.artefacts.header import environment
from pseudolabel.data import Dataset, Record, read_image
from pseudolabel.data.augmentation import resized
from pseudolabel.data.inputs import unreadable
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import CamNetwork
from pseudolabel.models.timm_models import built_as_vit, describe_backbone
from pseudolabel.models.weights import choose_weights, network_facts, trained_for, weights_inputs, weights_oracle
from pseudolabel.options import BackboneOptions, ClassifierOptions, DatasetOptions
from pseudolabel.runtime.devices import autocast
from pseudolabel.runtime.formatting import counted
from pseudolabel.runtime.progress import Progress


def make_header(
    stage: str,
    options: BackboneOptions,
    dataset: Dataset,
    backbone: Backbone,
    architecture: dict[str, Any],
    inputs: tuple[Input, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Header:
    """The header of the checkpoint to be; ``inputs`` are those beside data set and weights."""
    weights = choose_weights(options.weights, pretrained=options.pretrained)
    return child_header(
        "checkpoint",
        stage,
        options,
        {},
        inputs=(dataset.as_input(), *weights_inputs(options.backbone, weights), *inputs),
        oracle=(*dataset.oracle, *weights_oracle(options.weights)),
        classes=dataset.classes,
        dataset=dataset.spec(),
        network=network_facts(architecture, weights, (backbone.mean, backbone.std), options.crop),
        facts={"architecture": architecture},
        environment=environment(str(device), str(dtype).removeprefix("torch.")),
    )


@torch.no_grad()
def tag_map(
    network: CamNetwork,
    records: tuple[Record, ...],
    prepare: Any,
    crop: int,
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 32,
) -> float:
    """Mean average precision of the tags over the classes that occur among the records, main head, whole images.

    Raises:
        PseudolabelError: A logit is not finite: the training has diverged.
    """
    from sklearn.metrics import average_precision_score

    scores: list[np.ndarray] = []
    for start in range(0, len(records), batch):
        pixels = np.stack(
            [resized(read_image(r.image, r.decoding), (crop, crop)) for r in records[start : start + batch]]
        )
        with autocast(device, dtype):
            logits = network(prepare(torch.from_numpy(pixels).to(device))).logits
        scores.append(logits.float().cpu().numpy())
    predicted = np.concatenate(scores)
    spoilt = [record.id for record, found in zip(records, predicted, strict=True) if not np.isfinite(found).all()]
    if spoilt:
        raise PseudolabelError(
            f"the logits of {counted(len(spoilt), 'held-out image')} are not finite (first: {spoilt[0]}): "
            "lower --learning-rate or pass --precision float32"
        )
    truth = np.stack([tag_vector(record, predicted.shape[1]) for record in records])
    present = truth.any(axis=0)
    return float(average_precision_score(truth[:, present], predicted[:, present], average="macro"))


def tag_vector(record: Record, classes: int) -> np.ndarray:
    """Tags as float32 (C,), 1 where a class occurs."""
    vector = np.zeros(classes, dtype=np.float32)
    vector[[tag - 1 for tag in record.tags or ()]] = 1
    return vector


def encoder_of(options: BackboneOptions) -> dict[str, Any]:
    """The backbone's part of an ``architecture``, as JSON data."""
    described = describe_backbone(options.backbone, options.in_chans)
    return {**described, **trained_for(options.weights), "output_stride": options.output_stride}


def classifier_of(options: ClassifierOptions, classes: int) -> dict[str, Any]:
    """The part of an ``architecture`` that networks with CAMs share; ``classes`` does not count the background."""
    encoder = encoder_of(options)
    return {
        **encoder,
        **as_released(options),
        "auxiliary_block": options.auxiliary_block,
        "pooling": pooling_of(options, encoder),
        "classes": classes,
    }


def as_released(options: ClassifierOptions) -> dict[str, str]:
    """What an ``architecture`` says of how the backbone differs from timm's own, as JSON data; nothing by default.

    Raises:
        InputError: Images of one channel would be normalised by statistics of three.
    """
    if options.normalisation == "imagenet" and options.in_chans != 3:
        raise InputError("--normalisation imagenet is for 3 channels; leave out --in-chans, or use backbone")
    changed = {
        "normalisation": (options.normalisation, "backbone"),
        "position_embedding": (options.position_embedding, "trained"),
    }
    return {name: value for name, (value, usual) in changed.items() if value != usual}


def pooling_of(options: ClassifierOptions, architecture: Mapping[str, Any]) -> str:
    """``gap`` or ``gmp``: what is asked for, else what is best for the backbone (benchmarks/quality/pooling.py)."""
    return options.pooling or ("gmp" if built_as_vit(architecture) else "gap")


def require_tags(dataset: Dataset) -> None:
    """Refuse a data set in which an image has no tags.

    Raises:
        DatasetError: One has none.
    """
    dataset.require_tags(
        "put them into a tags.csv there, give --tags-file, or --tag-source masks, which is marked oracle"
    )


def usable(
    dataset: Dataset, read: Callable[[Record], object], options: DatasetOptions, progress: Progress
) -> tuple[tuple[Record, ...], dict[str, str]]:
    """The records that can be read; with --on-error skip the others are left out, by id and reason.

    Args:
        dataset: That is trained on.
        read: Reads all that a training needs of a record, and raises DatasetError where it cannot.
        options: What an unreadable image does.
        progress: Where to report.

    Raises:
        InputError: Fewer than two are left.
    """
    skipped = unreadable(dataset.records, read, progress) if options.on_error == "skip" else {}
    records = tuple(record for record in dataset.records if record.id not in skipped)
    if len(records) < 2:
        raise InputError(
            f"split {dataset.split} of {dataset.root} has {len(records)} usable images; training needs two"
        )
    return records, skipped
