"""``evaluate-masks``: masks and ground truth in, scores out, with everything beside them that they depend on.

Every image of the split must have exactly one mask of its size. An image that an earlier stage says it has skipped is
not scored and is listed in the result; every other missing, superfluous, misshapen or unreadable mask is an error. Only
where ``--split`` names another list than that which an artefact's masks are of may there be more masks: a part of them
is scored, for instance that which there is ground truth of.

Soft labels of every class are scored twice: unfiltered, which are the top-level figures, and with the classes that the
image tags exclude removed before the argmax. Masks that were made with the image tags only have a filtered score, and
those of unknown making have neither name.

Where images are among those that a network behind the masks was trained on, their scores are also split by what
supervised each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from pseudolabel.artefacts import Header, check_output, child_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.ground_truth import complain, named, records_of, require_objects
from pseudolabel.data.inputs import png_input
from pseudolabel.data.opening import restated
from pseudolabel.data.weak.supervision import Supervision, find_supervision
from pseudolabel.errors import InputError
from pseudolabel.evaluation.overlap import count_trained_on
from pseudolabel.evaluation.predictions import Predictions, open_predictions
from pseudolabel.evaluation.scoring import Scoring, count_images
from pseudolabel.metrics.intervals import describe_interval
from pseudolabel.metrics.scores import rounded
from pseudolabel.options import EvaluateMasksOptions
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

Item = TypeVar("Item")
BLOCK = {"png": 32, "masks": 8, "soft-labels": 1}
"""Images that a worker gets at a time: paths weigh nothing, maps of every class much."""
FEW = {"png": 1000, "masks": 1000, "soft-labels": 50}
"""Up to so many images, worker processes start more slowly than one process counts."""
MAIN = (
    "miou", "iou", "precision", "recall", "pixel_accuracy", "mean_accuracy", "boundary_iou", "labelled_share",
    "interval",
)  # fmt: skip
"""Scores that are given for the unfiltered and for the tag-filtered label maps."""


def evaluate_masks(
    options: EvaluateMasksOptions,
    progress: Progress = Progress(),  # noqa: B008 - has no state
) -> dict[str, Any]:
    """Score masks against ground truth.

    Args:
        options: Masks, data set where the masks do not name it, policy, boundary distance.
        progress: Where to report.

    Returns:
        ``out``; the keys of ``metrics.scores.summarise``; ``interval`` (of mIoU, 95 %); ``images``, ``skipped`` and
        ``unscored`` (their numbers; of the last, masks of images outside the split); ``trained_on`` (of how many images
        the network behind the masks has learnt, None where that is not known); ``worst`` (``id`` and ``miou`` of the
        worst images); ``unfiltered`` and ``tag_filtered`` (the main keys once more for each, None where there is no
        such score); ``by_supervision`` (as ``split_by``, None where no image was trained on, or nobody knows);
        ``oracle``; ``protocol``.

    Raises:
        InputError: Masks or options do not say which images to score.
        DatasetError: Masks are missing, superfluous, of another size, unreadable, or hold labels that are no class.
    """
    cost = CostMeter()
    out = options.artefact
    with open_predictions(options.masks) as predictions:
        check_output(out, overwrite=options.overwrite)
        dataset = open_ground_truth(options, predictions)
        predictions = part_of(predictions, dataset, progress)
        records = records_of(dataset, predictions.places, predictions.skipped, options.masks)
        require_objects(dataset, records)
        filtered = predictions.filterable and all(record.tags is not None for record in records)
        if predictions.skipped:
            progress.warn(f"{len(predictions.skipped)} images that an earlier stage has skipped are not scored")
        if predictions.filterable and not filtered:
            progress.warn(f"there is no tag-filtered score: some images have no tags{dataset.gone_note}")
        supervision = supervision_of(predictions, options, progress)
        kinds = supervision.kinds if supervision else None
        scoring = Scoring(options, dataset.classes, label_maps=1 + filtered, kinds=kinds)
        work = partial(
            count_images,
            read_mask=dataset.read_mask,
            classes=len(dataset.classes),
            options=options,
            filtered=filtered,
        )
        tasks = blocks(((record, predictions.read(record.id)) for record in records), BLOCK[predictions.kind])
        few = options.workers is None and len(records) <= FEW[predictions.kind]
        results = ordered_map(work, tasks, workers=0 if few else options.workers)
        with progress.track(len(records), "images") as advance, closing(results):
            for counts in results:
                scoring.add(counts)
                advance(len(counts.ids))
        complain(f"{options.masks} does not fit the ground truth of split {dataset.split}", scoring.faults)
        if scoring.predicts_nothing:
            progress.warn(
                f"no mask of {options.masks} holds a class, only background and 255, which is unlabelled; "
                "if a value of theirs stands for a class, save them with its index"
            )
        warn_of_absent(scoring.absent, dataset, records, predictions, progress)
        facts = describe(options, predictions, dataset, records, scoring, supervision)
        if predictions.tag_filter == "none":  # with the tags they are meant as pseudo labels
            warn_of_training(facts["trained_on"], len(records), predictions, options, progress)
        header = make_header(options, predictions, dataset, facts, supervision)
        arrays = scoring.arrays()
        if predictions.skipped:
            arrays["skipped/id"] = np.array(list(predictions.skipped), dtype=object)
            arrays["skipped/reason"] = np.array(list(predictions.skipped.values()), dtype=object)
    write_artefact(out, header, arrays, cost, images=len(records))
    return {"out": str(out), **facts}


def open_ground_truth(options: EvaluateMasksOptions, predictions: Predictions) -> Dataset:
    """The data set whose masks are the truth: what the options name, else what the masks say.

    Raises:
        InputError: Neither names a data set, a folder or a split, or it has other classes than the masks.
    """
    header = predictions.header
    spec = dict(header.dataset) if header else {}
    if spec.get("dataset") == "photographs" and not options.dataset:
        raise InputError(
            f"{options.masks} holds masks of new photographs, of which there is no ground truth; "
            "pass --dataset, --root and --split if a data set has them"
        )
    if options.dataset and options.dataset != spec.get("dataset"):
        spec = {"dataset": options.dataset, "split": spec.get("split")}
    unsaid = [f"--{name}" for name in ("dataset", "root", "split") if not (getattr(options, name) or spec.get(name))]
    if unsaid:
        inner = sorted(path.parent for path in options.masks.glob("*/masks.h5"))
        meant = f"; did you mean {' or '.join(map(str, inner[:3]))}? Otherwise" if inner else ";"
        raise InputError(f"{options.masks} does not say what it was made of{meant} pass {' and '.join(unsaid)}")
    if not predictions.filterable:
        spec |= {"tag_source": "none", "tags_file": None}
    dataset = reopen_dataset(restated(spec, options), split=options.split, root=options.root)
    if header:
        dataset.require_classes(header.classes, options.masks, masks=True)
    return dataset


def part_of(predictions: Predictions, dataset: Dataset, progress: Progress) -> Predictions:
    """The masks without those of images outside the split, where an artefact says that it was made of another."""
    header = predictions.header
    if header is None or header.dataset.get("split") == dataset.split:
        return predictions
    asked = {record.id for record in dataset.records}
    places = {name: place for name, place in predictions.places.items() if name in asked}
    skipped = {name: reason for name, reason in predictions.skipped.items() if name in asked}
    unscored = len(predictions.places) - len(places)
    if unscored:
        total = len(predictions.places)
        progress.log(f"{unscored} of {total} masks are of images outside split {dataset.split}: not scored")
    return replace(predictions, places=places, skipped=skipped, unscored=unscored)


def supervision_of(predictions: Predictions, options: EvaluateMasksOptions, progress: Progress) -> Supervision | None:
    """What supervised the images that the network behind the masks was trained on, if a checkpoint there says so."""
    found = find_supervision(predictions.parents)
    header = predictions.header
    if found is None and header is not None and "annotation_hours" in header.protocol:
        progress.warn(
            f"the checkpoint behind {options.masks} is not where it was: "
            "scores of images that it was trained on are not split by supervision"
        )
    return found


def warn_of_training(
    trained_on: int | None, images: int, predictions: Predictions, options: EvaluateMasksOptions, progress: Progress
) -> None:
    """Warn where a network has learnt the images that its predictions are scored on, and where nobody can say."""
    if trained_on:
        progress.warn(
            f"the network behind {options.masks} was trained on {trained_on} of the {images} images: "
            "their score says nothing about others"
        )
    named = any(item.kind == "checkpoint" for header in predictions.parents.values() for item in header.inputs)
    if trained_on is None and named:
        progress.warn(
            f"whether the network behind {options.masks} was trained on these images is not known: its checkpoint is "
            "not where it was, has learnt from another folder, or does not say from which images"
        )


def warn_of_absent(
    absent: Sequence[int], dataset: Dataset, records: Sequence[Record], predictions: Predictions, progress: Progress
) -> None:
    """Warn of classes that are tags of scored images, but of which the ground truth has no pixel.

    Args:
        absent: Classes without a pixel.
        dataset: Which may have been opened without its tags, since scores need none; then they are looked up.
        records: The images scored.
        predictions: The masks, which may say where the tags are.
        progress: Where to warn.
    """
    tags = {record.id: record.tags or () for record in records}
    if absent and not any(tags.values()):
        header = predictions.header
        stated = dict(header.dataset) if header and header.dataset.get("dataset") == dataset.name else {}
        source = {"tag_source": stated.get("tag_source", "auto"), "tags_file": stated.get("tags_file")}
        try:
            tagged = reopen_dataset({**stated, **dataset.spec(), **source})
        except InputError:
            return  # there are no tags to compare with
        tags = {record.id: record.tags or () for record in tagged.records if record.id in tags}
    counts = {label: sum(label in found for found in tags.values()) for label in absent}
    never = [f"{dataset.classes[label]} (tag of {count})" for label, count in counts.items() if count]
    if never:
        progress.warn(f"the ground truth has no pixel of classes that are tags of its images: {named(never)}")


def blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of ``size``, drawn one list at a time."""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block


def describe(
    options: EvaluateMasksOptions,
    predictions: Predictions,
    dataset: Dataset,
    records: Sequence[Record],
    scoring: Scoring,
    supervision: Supervision | None,
) -> dict[str, Any]:
    """The result, less where it is written."""
    main, *second = scoring.summaries()
    constructed = predictions.tag_filter == "image tags"
    unknown = predictions.tag_filter == "unknown"
    header = predictions.header
    return main | {
        "images": len(records),
        "skipped": len(predictions.skipped),
        "unscored": predictions.unscored,
        "trained_on": count_trained_on(predictions.parents, records),
        "worst": [{"id": name, "miou": rounded(score)} for score, name in scoring.worst],
        "unfiltered": None if constructed or unknown else main_scores(main),
        "tag_filtered": main_scores(main) if constructed else main_scores(second[0]) if second else None,
        "by_supervision": split_by(supervision, scoring, constructed=constructed) if supervision else None,
        "oracle": list(header.oracle) if header else [],
        "protocol": make_protocol(options, predictions, dataset, records, filtered=bool(second)),
    }


def split_by(supervision: Supervision, scoring: Scoring, *, constructed: bool) -> dict[str, Any] | None:
    """The scores of the images that have the same kinds of labels.

    Args:
        supervision: What supervised the images.
        scoring: Of all of them.
        constructed: Whether the masks were made with the image tags.

    Returns:
        By kinds in words: ``images``, ``miou``, ``unfiltered`` and ``tag_filtered`` (mIoU without and with the image
        tags, None where there is none) and ``annotation_seconds`` (what the labels of an image cost to draw, None where
        it was not trained on); None where none was.
    """
    found = {}
    for kind, (number, (main, *second)) in scoring.by_kind().items():
        found[kind] = {
            "images": number,
            "miou": main,
            "unfiltered": None if constructed else main,
            "tag_filtered": main if constructed else second[0] if second else None,
            "annotation_seconds": supervision.seconds.get(kind),
        }
    return found or None


def main_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Those that stand side by side for several label maps."""
    return {name: scores[name] for name in MAIN}


def make_protocol(
    options: EvaluateMasksOptions,
    predictions: Predictions,
    dataset: Dataset,
    records: Sequence[Record],
    *,
    filtered: bool,
) -> dict[str, Any]:
    """Everything that a score depends on."""
    header = predictions.header
    stated = dict.fromkeys(("scales", "flip", "crf", "threshold", "threshold_fitted_on")) | dict(
        header.protocol if header else {}
    )
    from_masks = dataset.tag_source == "masks"  # simulated scribbles make a data set an oracle, too
    source = "image tags read from pixel masks (oracle)" if from_masks else f"image tags ({dataset.tag_source})"
    return stated | {
        "dataset": dataset.name,
        "split": dataset.split,
        "ids_sha256": hashlib.sha256("\n".join(record.id for record in records).encode()).hexdigest(),
        "scored": predictions.path.name,
        "tag_filter": predictions.tag_filter,
        "tag_filtered_by": source if filtered else None,
        "predicted_255": options.ignored,
        "true_255": "never counted",
        **({"mask_values": dataset.mask_values.stated} if dataset.mask_values else {}),
        "absent_classes": "not in any mean",
        "boundary_distance": options.boundary and f"{options.boundary:g} of the diagonal",
        "interval": None if options.resamples == 0 else describe_interval(len(records)),
        "oracle": list(header.oracle) if header else [],
    }


def make_header(
    options: EvaluateMasksOptions,
    predictions: Predictions,
    dataset: Dataset,
    facts: dict[str, Any],
    supervision: Supervision | None,
) -> Header:
    """What the scores say about themselves; their facts are the whole result."""
    trained = {supervision.path: supervision.header} if supervision and facts["by_supervision"] else {}
    masks = (png_input(predictions.path),) if predictions.kind == "png" else ()
    return child_header(
        "scores",
        "evaluate-masks",
        options.model_copy(update={"out": options.artefact}),
        {**predictions.parents, **trained},
        inputs=(*masks, dataset.as_input()),
        protocol=facts["protocol"],
        classes=dataset.classes,
        dataset=dataset.spec(),
        facts=facts,
    )
