"""``train-segmenter``: masks in, a segmentation network out. Pixels of the ignore value teach nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.artefacts import Header, MapsReader, check_output, child_header, open_artefact
from pseudolabel.artefacts.header import EXTERNAL, CostMeter, environment
from pseudolabel.data import Record, read_image, reopen_dataset
from pseudolabel.data.augmentation import random_crop, resized
from pseudolabel.data.inputs import unreadable
from pseudolabel.data.records import IGNORE
from pseudolabel.data.weak.supervision import ANNOTATION
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.metrics.confusion import PixelCounter
from pseudolabel.metrics.scores import summarise
from pseudolabel.models.backbone import freeze, require_multiple
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.segmenter import AnySegmenter, DecoderSegmenter, build_segmenter, timm_model
from pseudolabel.models.timm_models import describe_backbone
from pseudolabel.models.weights import (
    Weights,
    choose_weights,
    network_facts,
    trained_for,
    weights_inputs,
    weights_oracle,
)
from pseudolabel.options import TrainSegmenterOptions
from pseudolabel.runtime.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.resizing import resize
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

_KEPT = (*ANNOTATION, EXTERNAL)
"""What a segmenter's own protocol states of the masks that it learnt from, besides their making in words."""


class MaskCrops:
    """Random views of photographs with their masks; sample (epoch, index) is always the same.

    The masks artefact is opened in each loader process when it is first needed.
    """

    def __init__(
        self, masks: Path, rows: dict[str, int], records: tuple[Record, ...], options: TrainSegmenterOptions
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


def train_segmenter(
    options: TrainSegmenterOptions,
    progress: Progress = Progress(),  # noqa: B008 - has no state
) -> dict[str, Any]:
    """Train a segmenter on masks and write its checkpoint.

    Args:
        options: Masks, network and schedule.
        progress: Where to report.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``agreement`` (mIoU with the masks of the held-out part, in [0, 1],
        or None), ``images``, ``skipped``, ``held_out``, ``unlabelled`` (images without a labelled pixel, left out),
        ``steps``.

    Raises:
        InputError: The masks, the photographs, the backbone or the weights are not what the options promise.
        PseudolabelError: The loss or the weights are no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    path = options.masks / "masks.h5" if options.masks.is_dir() else options.masks
    parent, rows = labelled_rows(path)
    dataset = reopen_dataset(parent.dataset, root=options.root)
    labelled = tuple(record for record in dataset.records if record.id in rows)
    skipping = options.on_error == "skip"
    skipped = unreadable(labelled, MaskCrops(path, rows, labelled, options).pair, progress) if skipping else {}
    records = tuple(record for record in labelled if record.id not in skipped)
    if len(records) < 2:
        raise InputError(f"{path} labels {len(records)} usable images of split {dataset.split}; training needs two")
    kept, held_out = split_records(records, options.holdout, options.seed)
    with joined(options.device) as (group, device):
        run = make_run(options, path, parent, MaskCrops(path, rows, kept, options), held_out, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        score = run.kept_measured.get("agreement")
        result = save_checkpoint(run, cost, kept, held_out, skipped=skipped, agreement=score)
    return {
        **result,
        "skipped": len(skipped),
        "agreement": score,
        "held_out": len(held_out),
        "unlabelled": len(dataset.records) - len(labelled),
    }


def make_run(
    options: TrainSegmenterOptions,
    path: Path,
    parent: Header,
    samples: MaskCrops,
    held_out: tuple[Record, ...],
    group: Group,
    device: torch.device,
) -> Run:
    """The training: network, views, loss, and the header of its checkpoint."""
    dtype = pick_dtype(options.precision, device)
    architecture, weights = choose_network(options, parent, path)
    network = make_network(options, architecture, weights)
    mean, std = network.mean, network.std
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))
    header = child_header(
        "checkpoint",
        "train-segmenter",
        options,
        {path: parent},
        inputs=weights_inputs(architecture["backbone"], weights),
        oracle=weights_oracle(None if weights == "pretrained" else weights),
        network=network_facts(architecture, weights, (mean, std), options.crop),
        facts={"architecture": architecture},
        environment=environment(str(device), str(dtype).removeprefix("torch.")),
    )

    def loss(net: AnySegmenter, batch: Batch) -> Losses:
        logits = net(normalise(batch["image"], mean, std, channels_last=channels_last))
        return {"loss": segmentation_loss(logits, batch["labels"], balanced=options.balanced)}

    def predict(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(resized(image, (options.crop, options.crop))[None]).to(device)
        with autocast(device, dtype), torch.inference_mode():
            logits = network(normalise(pixels, mean, std, channels_last=channels_last)).float()
        best = F.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(dim=0)
        return best.cpu().numpy().astype(np.uint8)

    return Run(
        network=network,
        samples=samples,
        objective=Mean(loss, options.ema),
        options=options,
        # how its masks were made is not how its own predictions are: those state their scales and thresholds themselves
        header=replace(header, protocol={"trained_on": describe_masks(len(samples), parent), **labelled_at(parent)}),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=(lambda _: {"agreement": agreement(samples, held_out, predict, parent.classes)}) if held_out else None,
        group=group,
    )


def describe_masks(count: int, parent: Header) -> str:
    """What a segmenter was trained on, in words that its scores state."""
    stated = {name: value for name, value in parent.protocol.items() if name not in _KEPT}
    made = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in stated.items())
    return f"{count} masks ({made or 'of unknown making'})"


def labelled_at(parent: Header) -> dict[str, Any]:
    """What the labels behind the masks cost to draw and the external models behind them, where they say so."""
    return {name: parent.protocol[name] for name in _KEPT if name in parent.protocol}


def choose_network(options: TrainSegmenterOptions, parent: Header, path: Path) -> tuple[dict[str, Any], Weights]:
    """The architecture, and the initial weights: what the options say, else what made the masks.

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
        "type": "segmenter",
        **describe_backbone(backbone, channels, known.get("backbone_config")),
        "decoder": options.decoder,
        "output_stride": known.get("output_stride"),
        "classes": len(parent.classes),
    }
    stored = known.get("weights")
    file = options.weights or (Path(stored) if stored else None)
    weights = choose_weights(file, pretrained=options.pretrained and known.get("pretrained", True))
    return architecture | trained_for(weights), weights


def make_network(options: TrainSegmenterOptions, architecture: dict[str, Any], weights: Weights) -> AnySegmenter:
    """Build the network with its initial weights, the first part of it frozen if asked."""
    torch.manual_seed(options.seed)
    network = build_segmenter(architecture, weights=weights)
    name = f"{options.decoder} on {architecture['backbone']}"
    if isinstance(network, DecoderSegmenter):
        require_multiple(options.crop, network.multiple, name)
    else:
        network.backbone.require_side(options.crop, name)
    freeze(timm_model(network), options.freeze)
    return network


def agreement(
    samples: MaskCrops,
    records: tuple[Record, ...],
    predict: Callable[[np.ndarray], np.ndarray],
    classes: tuple[str, ...],
) -> float:
    """mIoU of predictions with the masks of some records, which may be as wrong as pseudo labels are.

    Args:
        samples: Gives photograph and mask of a record.
        records: Those held out from training.
        predict: Photograph uint8 (H, W, 3) to labels uint8 (H, W).
        classes: Names, background first.
    """
    counter = PixelCounter(len(classes), boundary=None, ignored="background")
    table = np.zeros((len(classes) + 1, len(classes) + 1, 4))
    for record in records:
        image, labels = samples.pair(record)
        table += counter.table(labels, predict(image))
    return float(summarise(table, classes, "background", boundary=False)["miou"] or 0.0)


def labelled_rows(path: Path) -> tuple[Header, dict[str, int]]:
    """The header of a masks artefact, and the row of every image in which some pixel is labelled."""
    with open_artefact(path, "masks") as artefact:
        reader = MapsReader(artefact)
        ids = reader.images.ids
        usable = (row for row, name in enumerate(ids) if name not in reader.skipped)
        return artefact.header, {ids[row]: row for row in usable if (reader.labels(row) != IGNORE).any()}


def segmentation_loss(logits: Tensor, labels: Tensor, *, balanced: bool) -> Tensor:
    """Cross entropy over labelled pixels, at the labels' resolution.

    Args:
        logits: (B, K, h, w), enlarged bilinearly to the labels' size.
        labels: uint8 (B, H, W), 255 = ignore.
        balanced: Half the mean over background pixels plus half the mean over foreground pixels (CoSA's c2s form).

    Returns:
        A scalar; 0 where no pixel is labelled.
    """
    logits = resize(logits.float(), labels.shape[1:])
    pixels = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
    if not balanced:
        return _mean(pixels, labels != IGNORE)
    foreground = (labels != 0) & (labels != IGNORE)
    return 0.5 * _mean(pixels, labels == 0) + 0.5 * _mean(pixels, foreground)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)
