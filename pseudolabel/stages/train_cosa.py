"""``train-cosa``: image tags in, a segmentation network and its guided CAMs out (CoSA, arXiv 2402.17891).

A student learns tags, masks and maps at once. Its exponential average, the teacher, assigns what it learns: the
teacher's maps become the student's masks, the teacher's masks the student's maps. docs/cosa.md has the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.artefacts import check_output
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.cosa.assignments import cam_labels, guided_cams
from pseudolabel.cosa.cotraining import CoTraining, Teaching
from pseudolabel.cosa.step import Method
from pseudolabel.cosa.teacher import teacher_forward
from pseudolabel.cosa.thresholds import DynamicThreshold
from pseudolabel.data import Dataset, Record, open_dataset, read_image
from pseudolabel.data.augmentation import blurred, random_crop, recoloured, scaled_crop
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.errors import InputError
from pseudolabel.models.affinity import require_attention
from pseudolabel.models.backbone import freeze, require_multiple
from pseudolabel.models.cosa import CosaNetwork, build_cosa_network
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.timm_models import built_as_vit
from pseudolabel.models.weights import choose_weights
from pseudolabel.options import TrainCosaOptions
from pseudolabel.runtime.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.resizing import resize
from pseudolabel.training import Group, Run, joined, sample_rng, save_checkpoint, split_records, total_steps, train
from pseudolabel.training.image_tags import (
    classifier_of,
    make_header,
    require_tags,
    tag_map,
    tag_vector,
    usable,
)
from pseudolabel.training.validation import (
    Predict,
    chosen_by,
    quick_scores,
    small_mask,
    validation_records,
    within_tags,
)


class CosaCrops:
    """A weak and a strong view of one geometry, with the tags; sample (epoch, index) is always the same.

    Args:
        records: The photographs.
        classes: C, background not counted.
        options: Of the views.
        grid: Rows, and columns, of the network's map of a view.
    """

    def __init__(self, records: tuple[Record, ...], classes: int, options: TrainCosaOptions, grid: int) -> None:
        self._records, self._classes, self._options, self._grid = records, classes, options, grid

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record, options = self._records[index], self._options
        rng = sample_rng(options.seed, epoch, index)
        image, crop, jitter = read_image(record.image, record.decoding), options.crop, options.jitter
        if options.crop_scale is None:
            view, _ = random_crop(image, None, rng, crop=crop, area=options.crop_area, jitter=jitter)
            inside = np.ones((crop, crop), bool)
        else:
            view, inside = scaled_crop(image, rng, crop=crop, scales=options.crop_scale, jitter=jitter)
        weak = blurred(view, rng, options.blur)
        return {
            "id": record.id,
            "weak": weak,
            "strong": recoloured(weak, rng),
            "inside": inside,
            "tags": tag_vector(record, self._classes),
            "noise": rng.random((self._grid, self._grid), dtype=np.float32),
        }


def train_cosa(options: TrainCosaOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Train student and teacher and write their checkpoint.

    Args:
        options: Data set, network, schedule, and every part of the method.
        progress: Where to report.

    Returns:
        ``out``, ``tag_map`` (mean average precision of the teacher's tags on the held-out part, in [0, 1], or None),
        ``miou`` (of the kept state on ``--validate-on``, without the image tags, or None), ``loss`` (mean of the last
        epoch), ``low`` and ``high`` (thresholds), ``images``, ``skipped``, ``held_out``, ``steps``, ``oracle``.

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
    scored = validation_records(options, dataset, held_out, tagged=True)
    with joined(options.device) as (group, device):
        run = make_run(options, dataset, kept, held_out, scored, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        facts = {
            **{name: run.kept_measured.get(name) for name in ("tag_map", "miou")},
            "kept_step": run.kept_step,
        }
        result = save_checkpoint(run, cost, kept, held_out, skipped=skipped, **facts)
        arrays = run.best.arrays or run.objective.checkpoint(run.network)
        thresholds = {name: float(arrays[f"threshold/{name}"]) for name in ("low", "high")}
        oracle = list(run.header.oracle)
    return {**result, "skipped": len(skipped), **facts, **thresholds, "held_out": len(held_out), "oracle": oracle}


def make_run(
    options: TrainCosaOptions,
    dataset: Dataset,
    kept: tuple[Record, ...],
    held_out: tuple[Record, ...],
    scored: list[Record],
    group: Group,
    device: torch.device,
) -> Run:
    """The training: networks, views, losses, validation, and the header of the checkpoint."""
    dtype = pick_dtype(options.precision, device)
    architecture = architecture_of(options, len(dataset.classes) - 1)
    network = build_student(options, architecture)
    freeze(network.backbone.model, options.freeze)
    mean, std = network.backbone.mean, network.backbone.std
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))
    header = make_header("train-cosa", options, dataset, network.backbone, architecture, (), device, dtype)

    def prepare(images: Tensor) -> Tensor:
        return normalise(images, mean, std, channels_last=channels_last)

    samples = CosaCrops(kept, len(dataset.classes) - 1, options, options.crop // network.multiple)
    objective = make_objective(options, network, samples, prepare, group, dataset.classes)

    def validate(teacher: CosaNetwork) -> dict[str, float]:
        found = {"tag_map": tag_map(teacher, held_out, prepare, options.crop, device, dtype)} if held_out else {}
        if scored:
            with autocast(device, dtype), torch.inference_mode():
                predict = quick_predictions(teacher, prepare, options, objective.threshold)
                truth = partial(small_mask, dataset, side=options.crop)
                found |= quick_scores(scored, dataset.classes, options.crop, predict, truth, device)
        return found

    return Run(
        network=network,
        samples=samples,
        objective=objective,
        options=options,
        header=chosen_by(options, header),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=validate if held_out or scored else None,
        choose="miou" if options.keep == "best" else None,
        group=group,
        picture_every=options.picture_every,
    )


def architecture_of(options: TrainCosaOptions, classes: int) -> dict[str, Any]:
    """What ``build_cosa_network`` needs, as JSON data; ``classes`` does not count the background."""
    return {
        "type": "cosa",
        **classifier_of(options, classes),
        "auxiliary_stage": options.auxiliary_stage,
        "embedding": None if options.contrastive is None else options.embedding,
    }


def build_student(options: TrainCosaOptions, architecture: Mapping[str, Any]) -> CosaNetwork:
    """The network as timm initialises it; the same for the same seed.

    Raises:
        InputError: The views' side does not fit the network, or there is no auxiliary block.
    """
    if options.auxiliary_block is None and built_as_vit(architecture):
        raise InputError("train-cosa needs its auxiliary head; give --auxiliary-block a number, for instance -3")
    torch.manual_seed(options.seed)
    weights = choose_weights(options.weights, pretrained=options.pretrained)
    network = build_cosa_network(architecture, weights=weights)
    require_multiple(options.crop, network.multiple, options.backbone)
    network.backbone.require_side(options.crop, options.backbone)
    require_attention(network.backbone, options.propagate, options.backbone)
    return network


def make_objective(
    options: TrainCosaOptions,
    network: CosaNetwork,
    samples: CosaCrops,
    prepare: Callable[[Tensor], Tensor],
    group: Group,
    classes: tuple[str, ...],
) -> CoTraining:
    """Teacher, thresholds and losses."""
    steps = total_steps(samples, options)
    fixed = options.threshold == "fixed"
    names = {field.name for field in fields(Method)} - {"rule"}
    return CoTraining(
        network,
        Method(rule=options.cam_rule, **{name: getattr(options, name) for name in names}),
        Teaching(
            int(options.classification * steps),
            options.teacher_decay,
            options.teacher_scales,
            options.teacher_flip,
            options.propagate,
            options.cam_fusion,
            options.spl_scales,
        ),
        DynamicThreshold(
            "mixture" if options.threshold == "fixed" else options.threshold,
            low=options.low,
            high=options.high,
            length=options.queue,
            decay=options.threshold_decay,
        ),
        fixed=fixed,
        prepare=prepare,
        group=group,
        classes=classes,
    )


def quick_predictions(
    teacher: CosaNetwork, prepare: Callable[[Tensor], Tensor], options: TrainCosaOptions, threshold: DynamicThreshold
) -> Predict:
    """What is scored after an epoch, at one scale, not mirrored.

    Returns:
        A function that gives the teacher's segmentation, ``miou``, the same with the image tags, ``miou_tags``, and
        its CAMs at the middle of each head's thresholds, propagated as in training, ``cam_miou`` and
        ``auxiliary_cam_miou``.
    """
    size = (options.crop, options.crop)

    def predict(photographs: Tensor, tags: Tensor) -> dict[str, Tensor]:
        seen = teacher_forward(teacher, prepare(photographs), scales=(1,), flip=False, times=options.propagate)
        logits = resize(seen.segmentation, size)
        found = {"miou": logits.argmax(dim=1), "miou_tags": within_tags(logits, tags).argmax(dim=1)}
        own = options.auxiliary_thresholds
        main, auxiliary = threshold.value, threshold.value if own is None else sum(own) / 2
        for name, sums, cut in (("cam_miou", seen.maps, main), ("auxiliary_cam_miou", seen.auxiliary, auxiliary)):
            found[name] = cam_labels(guided_cams(sums, tags), tags, size, low=cut, high=cut).labels
        return found

    return predict
