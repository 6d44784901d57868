"""``refine-crf``: CAMs or soft labels and the photographs in, soft labels that follow the photographs' edges out.

The labels that a CRF starts from are background and the classes present only. Two rules leave unsure pixels unlabelled:

* ``irn`` (IRN's released code): one CRF over labels made with the high threshold, one with the low. A pixel keeps its
  class of the high run; it is background where both runs say so, and unlabelled where only the low run sees an object.
* ``cosa`` (CoSA's released code): a pixel whose strongest map lies between the two thresholds is unlabelled, whatever
  the one CRF over the middle threshold's labels makes of it.

Labels that an earlier stage box-constrained (``--tags boxes``) are box-constrained again after the CRF.

Probabilities are stored as uint8 (``labels.quantise``: no label changes), at image size, one map for background and
each class present; with a rule, a map of class 255 is 255 where a pixel is unlabelled. ``labels.from_soft`` reads that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from pseudolabel.artefacts import Header, MapsWriter, check_output, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.inputs import read_photograph
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.labels.assignment import Thresholds, assign_confident, probabilities, quantise
from pseudolabel.labels.box_constraints import BOX_CONSTRAINED, constrain_probabilities
from pseudolabel.labels.crf_search import Choice, chosen_crf
from pseudolabel.labels.inputs import MapsInput, MapsTask, open_maps, write_maps
from pseudolabel.options import CrfEngine, RefineCrfOptions
from pseudolabel.pairwise import CrfSettings, dense_crf, memory_free, memory_needed, require_engine, require_memory
from pseudolabel.runtime.parallel import cores
from pseudolabel.runtime.progress import Progress


def refine_crf(options: RefineCrfOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Refine every image's maps with a mean-field dense CRF on its photograph, in parallel over processes.

    Args:
        options: Maps, thresholds, the CRF's settings, the confidence rule.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``crf``, ``confidence``, ``mean_field_steps`` (the mean over this run's CRFs,
        fewer than asked for where nothing moved any more), ``images_per_second``.

    Raises:
        InputError: Thresholds are missing, superfluous or of other classes.
        DatasetError: A photograph is missing, unreadable or of another size than its maps.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    require_engine(options.engine)
    steps: list[int] = []
    device = _device(options)
    # One process computes on an accelerator: more would only take each other's memory.
    workers = 1 if device != "cpu" else cores() if options.workers is None else max(1, options.workers)
    choice = chosen_crf(options)
    with open_maps(options.cams, options.threshold, "cams", "soft-labels") as source:
        check_confidence(options, source)
        dataset = reopen_dataset(source.header.dataset, root=options.root)
        dataset.require_classes(source.header.classes, options.cams)
        records = dataset.find(source.images.ids, options.cams)
        held = BOX_CONSTRAINED in source.header.protocol
        if held and not any(record.boxes for record in records):
            raise InputError(
                f"{options.cams} is box-constrained, but no image of split {dataset.split} of {dataset.root} has any"
                f"{dataset.gone_note}; put them back where they were"
            )
        header = make_header(options, source, dataset, choice)
        work = partial(
            refine,
            settings=choice.settings,
            engine=options.engine,
            device=device,
            workers=workers,
            thresholds=source.thresholds,
            confidence=options.confidence,
            skip=options.on_error == "skip",
            held=held,
        )
        writer = MapsWriter(options.out, header, source.images, dtype="uint8", cost=cost, overwrite=options.overwrite)
        with writer:
            todo = range(writer.done, len(records))
            tasks = ((source.task(index), records[index]) for index in todo)
            counted = partial(_count_steps, counts=steps)
            write_maps(writer, work, tasks, len(records), workers=workers, progress=progress, to_maps=counted)
    skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": len(records) - skipped,
        "skipped": skipped,
        "crf": choice.words,
        "confidence": options.confidence,
        "mean_field_steps": round(float(np.mean(steps)), 2) if steps else None,
        "images_per_second": cost.read(len(todo))["images_per_second"],
    }


def check_confidence(options: RefineCrfOptions, source: MapsInput) -> None:
    """Refuse a confidence rule that lacks its thresholds.

    Raises:
        InputError: The maps are no CAMs, or the thresholds have no low or no high one.
    """
    if options.confidence == "none":
        return
    if source.thresholds is None:
        raise InputError(
            f"--confidence {options.confidence} compares CAMs with thresholds; {options.cams} holds soft-labels"
        )
    missing = [name for name in ("low", "high") if getattr(source.thresholds, name) is None]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        raise InputError(
            f"--confidence {options.confidence} needs a low and a high threshold; {options.threshold} lacks "
            f"{' and '.join(missing)}: pass {flags} to search-threshold"
        )


def make_header(options: RefineCrfOptions, source: MapsInput, dataset: Dataset, choice: Choice) -> Header:
    """What the soft labels say about themselves."""
    protocol = {"crf": choice.words}
    if options.confidence != "none" and source.thresholds is not None:
        low, high = (_text(getattr(source.thresholds, name)) for name in ("low", "high"))
        protocol["confidence"] = f"{options.confidence}, low {low}, high {high}"
    return child_header(
        "soft-labels",
        "refine-crf",
        options,
        {**source.parents, **choice.parents},
        inputs=(dataset.as_input(),),
        protocol=protocol,
        dataset=dataset.spec(),
        facts={"crf": asdict(choice.settings)},
    )


def refine(
    task: tuple[MapsTask, Record],
    *,
    settings: CrfSettings,
    engine: CrfEngine,
    device: str,
    workers: int,
    thresholds: Thresholds | None,
    confidence: str,
    skip: bool,
    held: bool,
) -> tuple[dict[int, np.ndarray], list[int]] | str:
    """One image's soft labels, or why there are none; runs in a worker process.

    Args:
        task: The image's maps, CAMs where ``thresholds`` are given, else soft labels; and its record.
        settings: The CRF's.
        engine: The CRF's.
        device: Where the engine ``exact`` computes.
        workers: How many processes share the memory that is free.
        thresholds: By class index.
        confidence: ``none``, ``irn`` or ``cosa``.
        skip: Whether an unreadable photograph is a reason instead of an error.
        held: Whether labels are box-constrained.

    Returns:
        Class index to uint8 (H, W), 0-255; the mean-field steps of each CRF that was run.

    Raises:
        DatasetError: The photograph is unreadable or of another size, and ``skip`` is false.
        PseudolabelError: It is too large for the memory that is free, whatever ``skip`` says: with more, it is not.
    """
    item, record = task
    photograph = record.image
    if item.skipped is not None:
        return item.skipped
    try:
        image = read_photograph(record, item.size)
    except DatasetError as error:
        if skip:
            return str(error)
        raise
    needed = memory_needed(item.size[0] * item.size[1], len(item.maps) + 1)
    require_memory(photograph, needed, memory_free(workers))
    labels, maps = at_size(item.maps, item.size)
    steps: list[int] = []

    def crf(scores: np.ndarray) -> np.ndarray:
        found = dense_crf(image, scores, settings, engine=engine, device=device)
        steps.append(found.steps)
        return found.probabilities

    if thresholds is None:
        refined, unlabelled = refine_soft(labels, maps, crf)
        labels = labels[labels != IGNORE]
    else:
        refined, unlabelled = refine_cams(labels, maps, thresholds, confidence, crf)
        labels = np.concatenate([[0], labels])
    if held:
        refined = constrain_probabilities(labels, refined, record)
    found = dict(zip(labels.tolist(), quantise(refined), strict=True))
    if unlabelled is not None:
        found[IGNORE] = unlabelled * np.uint8(255)
    return found, steps


def refine_soft(
    labels: np.ndarray, maps: np.ndarray, crf: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class probabilities after the CRF; pixels that were unlabelled stay so.

    Args:
        labels: int (P,), the class index of each map, from 0; 255 for a map of unlabelled pixels.
        maps: float32 (P, H, W) in [0, 1].
        crf: float32 (K, H, W), summing to 1, to the same refined.

    Returns:
        float32 (K, H, W) for the labels other than 255, summing to 1; bool (H, W), or None.
    """
    ignored, kept = maps[labels == IGNORE], maps[labels != IGNORE]
    return crf(kept / kept.sum(axis=0)), ignored[0] > 0.5 if len(ignored) else None


def refine_cams(
    labels: np.ndarray,
    maps: np.ndarray,
    thresholds: Thresholds,
    confidence: str,
    crf: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class probabilities after the CRF, and which pixels stay unlabelled.

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        thresholds: By class index; low and high ones where a rule needs them.
        confidence: ``none``, ``irn`` or ``cosa``.
        crf: float32 (K, H, W), summing to 1, to the same refined.

    Returns:
        float32 (P + 1, H, W), background first, summing to 1; bool (H, W), or None without a rule.
    """

    def run(threshold: np.ndarray) -> np.ndarray:
        return crf(probabilities(labels, maps, threshold))

    if confidence == "none" or thresholds.low is None or thresholds.high is None:
        return run(thresholds.value), None
    if confidence == "cosa":
        return run(thresholds.value), assign_confident(labels, maps, thresholds.low, thresholds.high) == IGNORE
    sure, likely = run(thresholds.high), run(thresholds.low)
    return sure, (sure.argmax(axis=0) == 0) & (likely.argmax(axis=0) > 0)


def _device(options: RefineCrfOptions) -> str:
    """Where the engine computes; torch is asked only if it does with torch."""
    if options.engine != "exact":
        return "cpu"
    from pseudolabel.runtime.devices import pick_device

    return str(pick_device(options.device))


def _count_steps(
    found: tuple[dict[int, np.ndarray], list[int]] | str, counts: list[int]
) -> dict[int, np.ndarray] | str:
    """Take the steps out of what a worker found."""
    if isinstance(found, str):
        return found
    counts.extend(found[1])
    return found[0]


def _text(threshold: np.ndarray) -> str:
    """One number for thresholds by class, if they are one."""
    values = np.unique(threshold[1:])
    return f"{values[0]:.3g}" if len(values) == 1 else "per class"
