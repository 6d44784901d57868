"""``train-semi``: a few masks and many photographs in, a segmenter out.

The images of ``--mask-list`` teach by their masks; the others by consistency, and by weak labels where they have some.
docs/few-masks.md has the equations. Masks that are given as labels are supervision, and no oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.artefacts import Header, check_output
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, load_dataset, open_dataset
from pseudolabel.data.ground_truth import require_objects
from pseudolabel.data.instances import InstanceMasks
from pseudolabel.data.records import IGNORE
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.data.weak.labels import listed_ids
from pseudolabel.data.weak.supervision import (
    annotation_hours,
    count_kinds,
    describe_averages,
    describe_supervision,
    kinds_of,
    supervision_arrays,
)
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.backbone import freeze, require_multiple
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.pair import PairNetwork, build_pair
from pseudolabel.models.segmenter import Segmenter, build_segmenter
from pseudolabel.models.weights import choose_weights
from pseudolabel.options import TrainSemiOptions
from pseudolabel.runtime.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.scribble.training_data import LabelledCrops, label_inputs, open_crops
from pseudolabel.semi.cross import CrossLearning
from pseudolabel.semi.learning import SemiLearning
from pseudolabel.semi.step import Method
from pseudolabel.semi.training_data import PairedCrops, Wanted
from pseudolabel.training import Group, Run, joined, save_checkpoint, split_records, total_steps, train
from pseudolabel.training.image_tags import encoder_of, make_header
from pseudolabel.training.validation import (
    chosen_by,
    quick_scores,
    quick_segmentation,
    small_mask,
    validation_records,
)

OWN: Mapping[str, Mapping[str, Any]] = {
    "supervised": {"consistency": 0.0, "confidence": 0.0, "strong_views": 0},
    "mean-teacher": {"consistency": 1.0, "confidence": 0.0, "strong_views": 1},
    "unimatch": {"consistency": 1.0, "confidence": 0.95, "strong_views": 2},
    "ccvc": {"consistency": 0.4, "confidence": 0.9, "strong_views": 1},
}
"""Each method's default of the settings that are none."""


def train_semi(options: TrainSemiOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Train a segmenter on the masks of some images and on all photographs, and write its checkpoint.

    Args:
        options: Data set and list of masks, network, schedule, and every part of the method.
        progress: Where to report.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``images`` (all that were trained on), ``masks`` (how many of them
        by their masks), ``steps``, ``skipped``, ``supervision`` (number of images by their kinds of labels),
        ``annotation_hours`` (what those labels cost to draw), ``miou`` (of the kept state on ``--validate-on``,
        without the image tags, or None), ``kept_step``, ``held_out``, ``oracle``.

    Raises:
        InputError: The data set, its labels, the backbone or the weights are not what the options promise.
        PseudolabelError: The loss or the weights are no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    masked = require_masks(options, dataset)
    views, records, skipped = open_crops(options, dataset, masked, progress)
    few, held_out = split_records(tuple(r for r in records if r.id in masked), options.holdout, options.seed)
    kept = tuple(record for record in records if record not in held_out)
    others = tuple(record for record in kept if record.id not in masked)
    if not few or not others:
        raise InputError(
            f"{len(few)} images with masks and {len(others)} without can be used of split {dataset.split} of "
            f"{dataset.root}; training needs some of both"
        )
    warn(dataset, few, others, options, progress)
    used = bare(others, options)
    scored = validation_records(options, dataset, held_out, tagged=False)
    with joined(options.device) as (group, device):
        run = make_run(options, dataset, (views.of(few), views.of(used)), scored, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        facts = {
            "masks": len(few),
            "supervision": count_kinds((*few, *used), masked),
            "annotation_hours": run.header.protocol["annotation_hours"],
            "miou": run.kept_measured.get("miou"),
            "kept_step": run.kept_step,
        }
        result = save_checkpoint(run, cost, kept, held_out, skipped=skipped, **facts)
    numbers = {"images": len(kept), "skipped": len(skipped), "held_out": len(held_out)}
    return {**result, **facts, **numbers, "oracle": list(run.header.oracle)}


def require_masks(options: TrainSemiOptions, dataset: Dataset) -> frozenset[str]:
    """The ids of the images whose pixel masks are used, once it is sure that they have some, and that others have none.

    Raises:
        DatasetError: The list cannot be read, names an image outside the split or one without a mask, its masks hold no
            class, or it names images that the training is scored on.
        InputError: It names all images.
    """
    masked = listed_ids(options.mask_list, dataset)
    if len(masked) == len(dataset.records):
        raise InputError(
            f"{options.mask_list} names all {len(masked)} images of split {dataset.split} of {dataset.root}: without a "
            "photograph that has no mask this is plain training, which train-scribble --supervision masks "
            "--regulariser none does"
        )
    listed = [record for record in dataset.records if record.id in masked]
    drawn = isinstance(dataset.read_mask, InstanceMasks)
    unmasked = [record.id for record in listed if record.mask is None and not drawn]
    if unmasked:
        raise DatasetError(
            f"{options.mask_list} names {len(unmasked)} images that have no mask in {dataset.root} "
            f"(first: {unmasked[0]!r}); draw their masks, or remove them from the list"
        )
    if options.on_error == "stop":
        for record in listed:
            dataset.read_mask(record)
    require_objects(dataset, listed)
    if options.validate_on not in (None, "held-out"):
        again = load_dataset(dataset.spec(), split=options.validate_on)
        both = sorted(masked & {record.id for record in again.records})
        if both:
            raise DatasetError(
                f"{len(both)} images of --validate-on {options.validate_on} are in {options.mask_list}, too "
                f"(first: {both[0]!r}): masks that are learnt validate nothing; take them out of one of the two"
            )
    return masked


def warn(
    dataset: Dataset,
    few: tuple[Record, ...],
    others: tuple[Record, ...],
    options: TrainSemiOptions,
    progress: Progress,
) -> None:
    """Say what is easily overlooked: labels that serve no image, and classes that no mask shows."""
    for line in dataset.strays:
        progress.warn(line)
    shown = np.zeros(IGNORE + 1, bool)
    for record in few:
        shown[np.unique(dataset.read_mask(record))] = True
    unseen = [name for label, name in enumerate(dataset.classes) if not shown[label]]
    if unseen:
        names = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
        progress.warn(f"no mask of {options.mask_list} shows {names}: what no mask shows is hardly learnt")
    weak = sum(bool(kinds_of(record, ())) for record in others)
    if weak and options.weak_labels and bare(others, options) != others:
        progress.warn(f"{weak} images without masks have other labels, and nothing uses them")


def settings_of(options: TrainSemiOptions) -> dict[str, Any]:
    """Consistency, confidence and strong views: those given, or the method's own."""
    return {
        name: own if getattr(options, name) is None else getattr(options, name)
        for name, own in OWN[options.method].items()
    }


def bare(others: tuple[Record, ...], options: TrainSemiOptions) -> tuple[Record, ...]:
    """Images without masks, less their weak labels where nothing is to use them."""
    wanted, method = wanted_of(options, others)
    if options.weak_labels and wanted.weak and (method.uses_labels or method.restrict):
        return others
    return tuple(replace(record, tags=None, scribbles=None, points=(), boxes=()) for record in others)


def wanted_of(options: TrainSemiOptions, others: tuple[Record, ...]) -> tuple[Wanted, Method]:
    """What is asked of the images without masks, and what it is for: losses of labels that nobody has are off."""
    own = settings_of(options)
    kinds = {kind for record in others for kind in kinds_of(record, ())}
    drawn, bounding = kinds - {"tags"}, kinds & {"tags", "boxes"}
    method = Method(
        options.method,
        consistency=own["consistency"],
        confidence=own["confidence"],
        perturbation=options.perturbation if options.method == "unimatch" else None,
        conflict_weight=options.conflict_weight,
        discrepancy=options.discrepancy if options.method == "ccvc" else None,
        restrict=options.restrict,
        by_image=options.by_image,
        partial=options.partial if drawn else None,
        exclusion=options.exclusion if bounding else None,
        presence=options.presence if kinds else None,
        objectness=options.objectness,
    )
    strong = own["strong_views"] if method.learns else 0
    return Wanted(method.learns or method.uses_labels, strong, options.cutmix), method


def make_run(
    options: TrainSemiOptions,
    dataset: Dataset,
    crops: tuple[LabelledCrops, LabelledCrops],
    scored: list[Record],
    group: Group,
    device: torch.device,
) -> Run:
    """The training: network, views, losses, validation, and the header of the checkpoint."""
    dtype = pick_dtype(options.precision, device)
    architecture = architecture_of(options, len(dataset.classes))
    network = build_network(options, architecture)
    for one in (network.first, network.second) if isinstance(network, PairNetwork) else (network,):
        freeze(one.backbone.model, options.freeze)
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))
    few, others = crops
    read = label_inputs(options, dataset, frozenset(record.id for record in few.records), options.mask_list, few.cams)
    header = make_header("train-semi", options, dataset, network.backbone, architecture, read, device, dtype)

    def prepare(images: Tensor) -> Tensor:
        return normalise(images, network.mean, network.std, channels_last=channels_last)

    supervision = supervision_arrays((*few.records, *others.records), few.masked, options.annotation_seconds)
    wanted, method = wanted_of(options, others.records)
    if method.learns and method.perturbation is not None:
        wanted = replace(wanted, channels=network.backbone.channels)
    samples = PairedCrops(few, others, wanted, options.seed, options.crop // network.multiple)
    tagged = all(record.tags is not None for record in scored)

    def validate(kept: Segmenter | PairNetwork) -> dict[str, float]:
        with autocast(device, dtype), torch.inference_mode():
            predict = quick_segmentation(kept, prepare, options.crop, tagged=tagged)
            truth = partial(small_mask, dataset, side=options.crop)
            return quick_scores(scored, dataset.classes, options.crop, predict, truth, device)

    return Run(
        network=network,
        samples=samples,
        objective=make_objective(options, network, method, samples, prepare, group, dataset.classes),
        options=options,
        header=chosen(options, stated(options, header, method, crops, annotation_hours(supervision))),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=validate if scored else None,
        choose="miou" if options.keep == "best" else None,
        group=group,
        picture_every=options.picture_every,
        more=supervision,
    )


def make_objective(
    options: TrainSemiOptions,
    network: Segmenter | PairNetwork,
    method: Method,
    samples: PairedCrops,
    prepare: Callable[[Tensor], Tensor],
    group: Group,
    classes: tuple[str, ...],
) -> SemiLearning:
    """The losses, and how they rise."""
    rising = int(options.ramp * total_steps(samples, options))
    learning = CrossLearning if isinstance(network, PairNetwork) else SemiLearning
    return learning(network, method, rising=rising, decay=options.ema, prepare=prepare, group=group, classes=classes)


def architecture_of(options: TrainSemiOptions, classes: int) -> dict[str, Any]:
    """What ``build_segmenter`` or ``build_pair`` needs, as JSON data; ``classes`` counts the background."""
    return {
        "type": "semi" if options.method == "ccvc" else "segmenter",
        **encoder_of(options),
        "decoder": "largefov",
        "classes": classes,
    }


def build_network(options: TrainSemiOptions, architecture: Mapping[str, Any]) -> Segmenter | PairNetwork:
    """The network as timm initialises it; the same for the same seed.

    Raises:
        InputError: The views' side does not fit the network.
    """
    torch.manual_seed(options.seed)
    build = build_pair if architecture["type"] == "semi" else build_segmenter
    network = build(architecture, weights=choose_weights(options.weights, pretrained=options.pretrained))
    assert isinstance(network, Segmenter | PairNetwork)  # of the decoder largefov
    require_multiple(options.crop, network.multiple, options.backbone)
    network.backbone.require_side(options.crop, options.backbone)
    return network


def stated(
    options: TrainSemiOptions,
    header: Header,
    method: Method,
    crops: tuple[LabelledCrops, LabelledCrops],
    hours: float,
) -> Header:
    """The header, saying what the network was trained on and how, and what these labels cost to draw."""
    few, others = crops
    counts = count_kinds((*few.records, *others.records), few.masked)
    parts = [describe_supervision(counts), f"method {options.method}"]
    weights = {
        name: getattr(method, name)
        for name in ("consistency", "discrepancy", "partial", "exclusion", "presence", "objectness")
    }
    parts += [f"{name} {value:g}" for name, value in weights.items() if value]
    bounded = any(set(kinds_of(record, ())) & {"tags", "boxes"} for record in others.records)
    if method.consistency and bounded:
        parts.append("targets restricted to tags and boxes" if method.restrict else "targets not restricted")
    oracle = (*header.oracle, *(few.cams.header.oracle if few.cams is not None else ()))
    return replace(
        header,
        oracle=tuple(dict.fromkeys(oracle)),
        protocol={
            **header.protocol,
            "trained_on": "; ".join(parts),
            "supervision": f"masks of {len(few)} images",
            "annotation_hours": hours,
            "annotation_averages": describe_averages(options.annotation_seconds),
        },
    )


def chosen(options: TrainSemiOptions, header: Header) -> Header:
    """The header, saying what chose the state that is kept: masks that were given as labels are no oracle."""
    if options.keep == "best" and options.validate_on == "held-out":
        state = "best on the held-out part of the images with masks"
        return replace(header, protocol={**header.protocol, "state": state})
    return chosen_by(options, header)
