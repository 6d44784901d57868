"""``train-cam``: image tags in, a classification network with class activation maps out.

Loss: multi-label soft margin on each head's pooled logits (IRN, SEAM, ToCo and CoSA train theirs so).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.artefacts import Header, Input, check_output, child_header
from pseudolabel.artefacts.header import CostMeter, environment
from pseudolabel.data import Dataset, Record, open_dataset, read_image
from pseudolabel.data.views import random_view, resized
from pseudolabel.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.backbone import initialise, require_multiple
from pseudolabel.models.cam import CamNetwork, build_cam_network
from pseudolabel.options import ClassifierOptions, TrainCamOptions
from pseudolabel.progress import Progress
from pseudolabel.sources import unreadable
from pseudolabel.training import (
    Batch,
    Group,
    Losses,
    Mean,
    Run,
    joined,
    sample_rng,
    save_checkpoint,
    split_records,
    train,
)


class TagViews:
    """Random views of photographs with their tags; sample (epoch, index) is always the same."""

    def __init__(self, records: tuple[Record, ...], classes: int, options: TrainCamOptions) -> None:
        self._records = records
        self._classes = classes
        self._options = options

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record, options = self._records[index], self._options
        view, _ = random_view(
            read_image(record.image),
            None,
            sample_rng(options.seed, epoch, index),
            crop=options.crop,
            area=options.view_area,
            jitter=options.jitter,
        )
        return {"id": record.id, "image": view, "tags": tag_vector(record, self._classes)}


def train_cam(options: TrainCamOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Train a CAM network and write its checkpoint.

    Args:
        options: Data set, network and schedule.
        progress: Where to report.

    Returns:
        ``out``, ``tag_map`` (mean average precision of the tags on the held-out part, in [0, 1], or None),
        ``loss`` (mean of the last epoch), ``images``, ``skipped``, ``held_out``, ``steps``.

    Raises:
        InputError: The data set, the backbone or the weights are not what the options promise.
        PseudolabelError: The loss is no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    dataset = open_dataset(options)
    records, skipped = usable(dataset, options, progress)
    kept, held_out = split_records(records, options.holdout, options.seed)
    with joined(options.device) as (group, device):
        run = make_run(options, dataset, kept, held_out, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        score = run.curves.get("epoch/tag_map", [None])[-1]
        held_out_ids = [record.id for record in held_out]
        result = save_checkpoint(run, cost, skipped=skipped, tag_map=score, held_out=held_out_ids)
    return {**result, "skipped": len(skipped), "tag_map": score, "held_out": len(held_out)}


def make_run(
    options: TrainCamOptions,
    dataset: Dataset,
    kept: tuple[Record, ...],
    held_out: tuple[Record, ...],
    group: Group,
    device: torch.device,
) -> Run:
    """The training: network, views, loss, and the header of its checkpoint."""
    dtype = pick_dtype(options.precision, device)
    architecture = architecture_of(options, len(dataset.classes) - 1)
    network = build_network(options, architecture)
    inputs = initialise(network.backbone.model, options.weights, options.freeze)
    mean, std = network.backbone.mean, network.backbone.std
    network.to(device).to(memory_format=memory_format(channels_last=options.channels_last))

    def prepare(images: Tensor) -> Tensor:
        return normalise(images, mean, std, channels_last=options.channels_last)

    def loss(net: CamNetwork, batch: Batch) -> Losses:
        return classification_losses(net, prepare(batch["image"]), batch["tags"])

    def validate(net: CamNetwork) -> dict[str, float]:
        return {"tag_map": tag_map(net, held_out, prepare, options.crop, device, dtype)}

    return Run(
        network=network,
        samples=TagViews(kept, len(dataset.classes) - 1, options),
        objective=Mean(loss, options.ema),
        options=options,
        header=make_header("train-cam", options, dataset, network, architecture, inputs, device, dtype),
        device=device,
        dtype=dtype,
        validate=validate if held_out else None,
        group=group,
    )


def make_header(
    stage: str,
    options: ClassifierOptions,
    dataset: Dataset,
    network: CamNetwork,
    architecture: dict[str, Any],
    inputs: tuple[Input, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Header:
    """The header of the checkpoint to be."""
    return child_header(
        "checkpoint",
        stage,
        options,
        {},
        inputs=(dataset.as_input(), *inputs),
        oracle=dataset.oracle,
        classes=dataset.classes,
        dataset=dataset.spec(),
        network={
            "backbone": options.backbone,
            "output_stride": options.output_stride,
            "weights": str(options.weights.resolve()) if options.weights else None,
            "pretrained": options.pretrained,
            "mean": network.backbone.mean,
            "std": network.backbone.std,
            "crop": options.crop,
        },
        facts={"architecture": architecture},
        environment=environment(str(device), str(dtype).removeprefix("torch.")),
    )


def architecture_of(options: TrainCamOptions, classes: int) -> dict[str, Any]:
    """What ``build_cam_network`` needs, as JSON data; ``classes`` does not count the background."""
    return {
        "type": "cam",
        "backbone": options.backbone,
        "output_stride": options.output_stride,
        "auxiliary_block": options.auxiliary_block,
        "pooling": options.pooling,
        "classes": classes,
    }


def build_network(options: TrainCamOptions, architecture: dict[str, Any]) -> CamNetwork:
    """The network as timm initialises it; the same for the same seed.

    Raises:
        InputError: The views' side does not fit the network.
    """
    torch.manual_seed(options.seed)
    network = build_cam_network(architecture, pretrained=options.pretrained and options.weights is None)
    if network.backbone.is_vit:
        require_multiple(options.crop, network.backbone.stride, options.backbone)
    return network


def classification_losses(network: CamNetwork, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
    """Multi-label soft margin on each head, and their sum.

    Args:
        network: The CAM network.
        images: Normalised, (B, 3, H, W).
        tags: float (B, C), 1 where a class occurs.
    """
    output = network(images)
    losses = {"main": F.multilabel_soft_margin_loss(network.pool(output.maps).float(), tags)}
    if output.auxiliary is not None:
        losses["auxiliary"] = F.multilabel_soft_margin_loss(network.pool(output.auxiliary).float(), tags)
    return {"loss": torch.stack(list(losses.values())).sum(), **losses}


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
    """Mean average precision of the tags over the classes that occur among the records, main head, whole images."""
    from sklearn.metrics import average_precision_score

    scores: list[np.ndarray] = []
    for start in range(0, len(records), batch):
        pixels = np.stack([resized(read_image(r.image), (crop, crop)) for r in records[start : start + batch]])
        with autocast(device, dtype):
            maps = network(prepare(torch.from_numpy(pixels).to(device))).maps
        scores.append(network.pool(maps).float().cpu().numpy())
    predicted = np.concatenate(scores)
    truth = np.stack([tag_vector(record, predicted.shape[1]) for record in records])
    present = truth.any(axis=0)
    return float(average_precision_score(truth[:, present], predicted[:, present], average="macro"))


def tag_vector(record: Record, classes: int) -> np.ndarray:
    """Tags as float32 (C,), 1 where a class occurs."""
    vector = np.zeros(classes, dtype=np.float32)
    vector[[tag - 1 for tag in record.tags or ()]] = 1
    return vector


def usable(
    dataset: Dataset, options: ClassifierOptions, progress: Progress
) -> tuple[tuple[Record, ...], dict[str, str]]:
    """The records with readable images; with --on-error skip the others are left out, by id and reason.

    Raises:
        DatasetError: An image has no tags.
        InputError: Fewer than two images are left.
    """
    untagged = [record.id for record in dataset.records if record.tags is None]
    if untagged:
        raise DatasetError(
            f"{len(untagged)} images of {dataset.root} have no tags (first: {untagged[0]}); "
            "give --tags-file, or --tag-source masks, which is marked oracle"
        )
    skipping = options.on_error == "skip"
    skipped = unreadable(dataset.records, lambda record: read_image(record.image), progress) if skipping else {}
    records = tuple(record for record in dataset.records if record.id not in skipped)
    if len(records) < 2:
        raise InputError(
            f"split {dataset.split} of {dataset.root} has {len(records)} usable images; training needs two"
        )
    return records, skipped
