"""``train-cam``: image tags in, a classification network with class activation maps out.

Loss: multi-label soft margin on each head's pooled logits (IRN, SEAM, ToCo and CoSA train theirs so).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.artefacts import check_output
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, open_dataset, read_image
from pseudolabel.data.augmentation import random_crop
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.models.backbone import freeze
from pseudolabel.models.cam import CamNetwork, build_cam_network
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.weights import choose_weights
from pseudolabel.options import TrainCamOptions
from pseudolabel.runtime.devices import memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
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
from pseudolabel.training.image_tags import (
    classifier_of,
    make_header,
    require_tags,
    tag_map,
    tag_vector,
    usable,
)


class TagCrops:
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
        view, _ = random_crop(
            read_image(record.image, record.decoding),
            None,
            sample_rng(options.seed, epoch, index),
            crop=options.crop,
            area=options.crop_area,
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
        PseudolabelError: The loss or the weights are no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    require_tags(dataset)
    records, skipped = usable(dataset, lambda record: read_image(record.image, record.decoding), options, progress)
    kept, held_out = split_records(records, options.holdout, options.seed)
    with joined(options.device) as (group, device):
        run = make_run(options, dataset, kept, held_out, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        score = run.kept_measured.get("tag_map")
        result = save_checkpoint(run, cost, kept, held_out, skipped=skipped, tag_map=score)
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
    freeze(network.backbone.model, options.freeze)
    mean, std = network.backbone.mean, network.backbone.std
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))

    def prepare(images: Tensor) -> Tensor:
        return normalise(images, mean, std, channels_last=channels_last)

    def loss(net: CamNetwork, batch: Batch) -> Losses:
        return classification_losses(net, prepare(batch["image"]), batch["tags"])

    def validate(net: CamNetwork) -> dict[str, float]:
        return {"tag_map": tag_map(net, held_out, prepare, options.crop, device, dtype)}

    return Run(
        network=network,
        samples=TagCrops(kept, len(dataset.classes) - 1, options),
        objective=Mean(loss, options.ema),
        options=options,
        header=make_header("train-cam", options, dataset, network.backbone, architecture, (), device, dtype),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=validate if held_out else None,
        group=group,
    )


def architecture_of(options: TrainCamOptions, classes: int) -> dict[str, Any]:
    """What ``build_cam_network`` needs, as JSON data; ``classes`` does not count the background."""
    return {"type": "cam", **classifier_of(options, classes)}


def build_network(options: TrainCamOptions, architecture: dict[str, Any]) -> CamNetwork:
    """The network as timm initialises it; the same for the same seed.

    Raises:
        InputError: The views' side does not fit the network.
    """
    torch.manual_seed(options.seed)
    network = build_cam_network(architecture, weights=choose_weights(options.weights, pretrained=options.pretrained))
    network.backbone.require_side(options.crop, options.backbone)
    return network


def classification_losses(network: CamNetwork, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
    """Multi-label soft margin on each head, and their sum.

    Args:
        network: The CAM network.
        images: Normalised, (B, 3, H, W).
        tags: float (B, C), 1 where a class occurs.
    """
    output = network(images)
    losses = {"main": F.multilabel_soft_margin_loss(output.logits.float(), tags)}
    if output.auxiliary_logits is not None:
        losses["auxiliary"] = F.multilabel_soft_margin_loss(output.auxiliary_logits.float(), tags)
    return {"loss": torch.stack(list(losses.values())).sum(), **losses}
