"""``train-segmenter``: masks in, a segmentation network out. Pixels of the ignore value teach nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.artefacts import check_output, child_header
from pseudolabel.artefacts.header import CostMeter, environment
from pseudolabel.data import Record
from pseudolabel.data.augmentation import resized
from pseudolabel.data.records import IGNORE
from pseudolabel.metrics.confusion import PixelCounter
from pseudolabel.metrics.scores import summarise
from pseudolabel.models.backbone import freeze, require_multiple
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.segmenter import AnySegmenter, DecoderSegmenter, build_segmenter, timm_model
from pseudolabel.models.weights import (
    Weights,
    network_facts,
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
    save_checkpoint,
    train,
)
from pseudolabel.training.masked import (
    LabelledPhotographs,
    MaskCrops,
    choose_encoder,
    describe_masks,
    labelled_at,
    open_labelled,
)


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
    found = open_labelled(options, progress)
    with joined(options.device) as (group, device):
        run = make_run(options, found, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        score = run.kept_measured.get("agreement")
        result = save_checkpoint(run, cost, found.kept, found.held_out, skipped=found.skipped, agreement=score)
    return {
        **result,
        "skipped": len(found.skipped),
        "agreement": score,
        "held_out": len(found.held_out),
        "unlabelled": found.unlabelled,
    }


def make_run(options: TrainSegmenterOptions, found: LabelledPhotographs, group: Group, device: torch.device) -> Run:
    """The training: network, views, loss, and the header of its checkpoint."""
    path, parent, held_out = found.path, found.header, found.held_out
    samples = MaskCrops(path, found.rows, found.kept, options)
    dtype = pick_dtype(options.precision, device)
    encoder, weights = choose_encoder(options, parent, path)
    architecture = {"type": "segmenter", **encoder, "decoder": options.decoder, "classes": len(parent.classes)}
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
