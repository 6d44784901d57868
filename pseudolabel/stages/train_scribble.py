"""``train-scribble``: scribbles, points, boxes, tags or masks in, in any mixture, a segmenter out.

What is labelled teaches by the partial cross entropy; what is not, by a regulariser, of which DFR's (arXiv 2108.01296)
is the default; what tags and boxes exclude or promise, by losses of their own. docs/scribbles.md has the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pseudolabel.artefacts import Header, check_output
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, open_dataset
from pseudolabel.data.ground_truth import require_objects
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.data.weak.supervision import (
    annotation_hours,
    count_kinds,
    describe_averages,
    describe_supervision,
    kinds_of,
    masked_ids,
    require_labels,
    supervision_arrays,
)
from pseudolabel.errors import InputError
from pseudolabel.models.backbone import freeze, require_multiple
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.scribble import ScribbleNetwork, build_scribble_network
from pseudolabel.models.weights import choose_weights
from pseudolabel.options import TrainScribbleOptions
from pseudolabel.pairwise.loss_modules import RELEASED, Bilateral
from pseudolabel.runtime.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.scribble.learning import Phases, WeakLearning
from pseudolabel.scribble.regularisers import OWN, build_regulariser, default_weight
from pseudolabel.scribble.step import Method
from pseudolabel.scribble.training_data import LabelledCrops, label_inputs, open_crops
from pseudolabel.training import Group, Run, joined, save_checkpoint, split_records, total_steps, train
from pseudolabel.training.image_tags import encoder_of, make_header
from pseudolabel.training.validation import (
    chosen_by,
    quick_scores,
    quick_segmentation,
    small_mask,
    validation_records,
)


def train_scribble(options: TrainScribbleOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Train a segmenter on what labels there are and write its checkpoint.

    Args:
        options: Data set and labels, network, schedule, and every part of the method.
        progress: Where to report.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``images``, ``steps``, ``skipped``, ``supervision`` (number of
        images by their kinds of labels), ``annotation_hours`` (what those labels cost to draw), ``agreement`` (mIoU
        with the labelled pixels of the held-out part, in [0, 1], or None), ``miou`` (of the kept state on
        ``--validate-on``, without the image tags, or None), ``kept_step``, ``held_out``, ``oracle``.

    Raises:
        InputError: The data set, its labels, the backbone or the weights are not what the options promise.
        PseudolabelError: The loss or the weights are no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    masked = masked_ids(options, dataset)
    require_labels(dataset, masked)
    require_objects(dataset, [record for record in dataset.records if record.id in masked and record.tags != ()])
    views, records, skipped = open_crops(options, dataset, masked, progress)
    kept, held_out = split_records(records, options.holdout, options.seed)
    warn(dataset, kept, masked, options, progress)
    scored = validation_records(options, dataset, held_out, tagged=False)
    with joined(options.device) as (group, device):
        run = make_run(options, dataset, views.of(kept), held_out, scored, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        facts = {
            "supervision": count_kinds(kept, masked),
            "annotation_hours": run.header.protocol["annotation_hours"],
            **{name: run.kept_measured.get(name) for name in ("agreement", "miou")},
            "kept_step": run.kept_step,
        }
        result = save_checkpoint(run, cost, kept, held_out, skipped=skipped, **facts)
    return {**result, "skipped": len(skipped), **facts, "held_out": len(held_out), "oracle": list(run.header.oracle)}


def warn(
    dataset: Dataset,
    records: tuple[Record, ...],
    masked: frozenset[str],
    options: TrainScribbleOptions,
    progress: Progress,
) -> None:
    """Say what is easily overlooked: labels that serve no image, and images that nothing is learnt from."""
    for line in dataset.strays:
        progress.warn(line)
    only = sum(kinds_of(record, masked) == ("tags",) for record in records)
    if only and options.exclusion is None and options.presence is None and options.objectness is None:
        progress.warn(f"{only} images have tags only, and --exclusion, --presence and --objectness are off")


def make_run(
    options: TrainScribbleOptions,
    dataset: Dataset,
    samples: LabelledCrops,
    held_out: tuple[Record, ...],
    scored: list[Record],
    group: Group,
    device: torch.device,
) -> Run:
    """The training: network, views, losses, validation, and the header of the checkpoint."""
    dtype = pick_dtype(options.precision, device)
    architecture = architecture_of(options, len(dataset.classes))
    network = build_network(options, architecture)
    freeze(network.backbone.model, options.freeze)
    mean, std = network.backbone.mean, network.backbone.std
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))
    read = label_inputs(options, dataset, samples.masked, options.mask_list, samples.cams)
    header = make_header("train-scribble", options, dataset, network.backbone, architecture, read, device, dtype)
    samples.grid = options.crop // network.multiple

    def prepare(images: Tensor) -> Tensor:
        return normalise(images, mean, std, channels_last=channels_last)

    supervision = supervision_arrays(samples.records, samples.masked, options.annotation_seconds)
    answerable = [record for record in held_out if kinds_of(record, samples.masked) != ("tags",)]
    tagged = all(record.tags is not None for record in scored)

    def validate(kept: ScribbleNetwork) -> dict[str, float]:
        score = partial(quick_scores, classes=dataset.classes, crop=options.crop, device=device)
        predict = quick_segmentation(kept.segment, prepare, options.crop)
        found: dict[str, float] = {}
        with autocast(device, dtype), torch.inference_mode():
            if answerable:
                whole = score(answerable, predict=predict, read_ground_truth=samples.whole)
                found["agreement"] = whole["miou"]
            if scored:
                with_tags = quick_segmentation(kept.segment, prepare, options.crop, tagged=tagged)
                found |= score(
                    scored, predict=with_tags, read_ground_truth=partial(small_mask, dataset, side=options.crop)
                )
        return found

    return Run(
        network=network,
        samples=samples,
        objective=make_objective(options, network, samples, prepare, group, dataset.classes),
        options=options,
        header=chosen_by(options, stated(options, header, samples, annotation_hours(supervision))),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=validate if answerable or scored else None,
        choose="miou" if options.keep == "best" else None,
        group=group,
        picture_every=options.picture_every,
        more=supervision,
    )


def weight_of(options: TrainScribbleOptions) -> float:
    """The regulariser's weight: the one given, or its own."""
    given = options.regulariser_weight
    if options.regulariser == "none" or given is None:
        return default_weight(options.regulariser, options.crop)
    return given


def consistency_of(options: TrainScribbleOptions) -> float | None:
    """The weight of the feature consistency, which belongs to DFR; None where it is off."""
    return options.consistency if options.regulariser == "dfr" else None


def architecture_of(options: TrainScribbleOptions, classes: int) -> dict[str, Any]:
    """What ``build_scribble_network`` needs, as JSON data; ``classes`` counts the background.

    The network has an embedding where something uses it: DFR's kernel, or the loss that trains it.
    """
    in_kernel = weight_of(options) > 0 and options.sigma_embedding is not None
    embeds = options.regulariser == "dfr" and (in_kernel or consistency_of(options) is not None)
    return {
        "type": "scribble",
        **encoder_of(options),
        "embedding": options.embedding if embeds else None,
        "classes": classes,
    }


def build_network(options: TrainScribbleOptions, architecture: Mapping[str, Any]) -> ScribbleNetwork:
    """The network as timm initialises it; the same for the same seed.

    Raises:
        InputError: The views' side does not fit the network, or is too small for DFR.
    """
    torch.manual_seed(options.seed)
    weights = choose_weights(options.weights, pretrained=options.pretrained)
    network = build_scribble_network(architecture, weights=weights)
    require_multiple(options.crop, network.multiple, options.backbone)
    network.backbone.require_side(options.crop, options.backbone)
    if architecture["embedding"] is not None and options.crop == network.multiple:
        raise InputError(
            f"--regulariser dfr compares cells of a view, and {options.backbone} sees one in --crop {options.crop}; "
            f"use {2 * network.multiple} or more"
        )
    return network


def make_objective(
    options: TrainScribbleOptions,
    network: ScribbleNetwork,
    samples: LabelledCrops,
    prepare: Callable[[Tensor], Tensor],
    group: Group,
    classes: tuple[str, ...],
) -> WeakLearning:
    """The losses, and when they begin."""
    steps = total_steps(samples, options)
    regulariser = None
    if weight_of(options) > 0:
        regulariser = build_regulariser(
            options.regulariser,
            weight=weight_of(options),
            crop=options.crop,
            bilateral=kernel_of(options),
            sigma=options.sigma_embedding,
        )
    return WeakLearning(
        network,
        Method(
            by_image=options.by_image,
            regulariser=None if regulariser is None else 1.0,  # its weight is in it
            consistency=consistency_of(options),
            confidence=options.confidence,
            cells=options.cells,
            exclusion=options.exclusion,
            presence=options.presence,
            objectness=options.objectness,
        ),
        regulariser,
        Phases(int(options.start * steps), int(options.ramp * steps)),
        decay=options.ema,
        prepare=prepare,
        group=group,
        classes=classes,
    )


def kernel_of(options: TrainScribbleOptions) -> Bilateral:
    """The kernel in position and colour: the regulariser's own, with those numbers that are given."""
    given: dict[str, Any] = {"sigma_xy": options.sigma_xy, "sigma_rgb": options.sigma_rgb, "scale": options.map_scale}
    own = OWN.get(options.regulariser, RELEASED)
    return replace(own, **{name: value for name, value in given.items() if value is not None})


def stated(options: TrainScribbleOptions, header: Header, samples: LabelledCrops, hours: float) -> Header:
    """The header, saying what the network was trained on and how, and where pixel masks were used."""
    counts = count_kinds(samples.records, samples.masked)
    parts = [describe_supervision(counts), f"regulariser {options.regulariser}"]
    if options.regulariser != "none":
        parts[-1] += f" {weight_of(options):.3g}"
    for name, value in (
        ("consistency", consistency_of(options)),
        ("exclusion", options.exclusion),
        ("presence", options.presence),
        ("objectness", options.objectness),
    ):
        if value:
            parts.append(f"{name} {value:g}")
    masks = counts.get("pixel masks", 0)
    reasons = [f"{masks} pixel masks used in training"] if masks else []
    if samples.cams is not None:
        reasons += samples.cams.header.oracle
    return replace(
        header,
        oracle=tuple(dict.fromkeys((*header.oracle, *reasons))),
        protocol={
            **header.protocol,
            "trained_on": "; ".join(parts),
            "annotation_hours": hours,
            "annotation_averages": describe_averages(options.annotation_seconds),
        },
    )
