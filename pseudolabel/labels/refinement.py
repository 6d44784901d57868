"""What every refiner of maps shares: starts from CAMs or soft labels, rules that leave pixels unlabelled, the loop.

A refiner takes class probabilities of an image to class probabilities (``Refiner``). Three rules leave unsure pixels
unlabelled:

* ``irn`` (IRN's released code): refined once from labels of the high threshold, once from those of the low. A pixel
  keeps its class of the high run; it is background where both say so, and unlabelled where only the low run sees an
  object.
* ``cosa`` (CoSA's released code): a pixel whose strongest map lies between the two thresholds is unlabelled, whatever
  the refiner makes of it.
* ``posterior`` (CLIP-ES): a pixel is unlabelled where its refined probability is below a limit.

Labels that an earlier stage box-constrained (``--tags boxes``) are box-constrained again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.inputs import read_photograph
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.labels.assignment import Thresholds, assign_confident, probabilities, quantise
from pseudolabel.labels.box_constraints import BOX_CONSTRAINED, constrain_probabilities, require_boxes
from pseudolabel.labels.inputs import MapsInput, MapsTask, open_maps
from pseudolabel.options.refiners import RefinerOptions


class Start(NamedTuple):
    """What a refiner starts from.

    Attributes:
        record: The image's.
        image: uint8 (H, W, 3), RGB.
        labels: int (K,), the class index of each map, 0 for background first.
        runs: float32 (K, H, W) each, summing to 1: one, or two for rule ``irn``, of the high threshold and the low.
        unlabelled: bool (H, W), pixels that stay unlabelled whatever is found; None if none does.
    """

    record: Record
    image: np.ndarray
    labels: np.ndarray
    runs: tuple[np.ndarray, ...]
    unlabelled: np.ndarray | None


Refiner = Callable[[Sequence[Start]], Sequence[Sequence[np.ndarray]]]
"""Images of one size to what each of their runs becomes: float32 (K, H, W), summing to 1."""

Begin = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Labels (P,), maps (P, H, W) and thresholds (C + 1,) to probabilities (P + 1, H, W), background first."""

RefineTask = tuple[MapsTask, Record]


@dataclass(frozen=True)
class Rules:
    """How labels are made before and after a refiner; a worker process gets it.

    Attributes:
        thresholds: By class index; None where the maps are soft labels.
        confidence: ``none``, ``irn``, ``cosa`` or ``posterior``.
        begin: CAMs and thresholds to the probabilities that are refined; ``assignment`` has two.
        sure: The least probability that ``posterior`` labels.
        skip: Whether an unreadable photograph is a reason instead of an error.
        constrained: Whether labels are box-constrained.
    """

    thresholds: Thresholds | None
    confidence: str
    begin: Begin
    sure: float
    skip: bool
    constrained: bool


class Refinement(NamedTuple):
    """All that is to be refined.

    Attributes:
        source: The maps.
        dataset: Theirs.
        records: Of the maps' images, in their order.
        rules: From options and maps.
    """

    source: MapsInput
    dataset: Dataset
    records: Sequence[Record]
    rules: Rules

    def tasks(self, first: int) -> Iterator[RefineTask]:
        """What a worker gets of every image from ``first`` on."""
        return ((self.source.task(index), self.records[index]) for index in range(first, len(self.records)))

    def protocol(self) -> dict[str, str]:
        """What a header says of the rule."""
        name, thresholds = self.rules.confidence, self.rules.thresholds
        if name == "posterior":
            return {"confidence": f"posterior, {self.rules.sure:g}"}
        if name == "none" or thresholds is None:
            return {}
        low, high = (_text(getattr(thresholds, bound)) for bound in ("low", "high"))
        return {"confidence": f"{name}, low {low}, high {high}"}


@contextmanager
def open_refinement(options: RefinerOptions, begin: Begin = probabilities) -> Iterator[Refinement]:
    """Open maps, their thresholds and photographs, and find out what they lack.

    Args:
        options: Where they lie, and the rule.
        begin: What makes probabilities of CAMs.

    Raises:
        ArtefactError: A file is not what it should be.
        InputError: Thresholds are missing, superfluous or of other classes, or boxes are gone.
        DatasetError: The data set lacks an image of the maps.
    """
    with open_maps(options.cams, options.threshold, "cams", "soft-labels") as source:
        check_confidence(options, source)
        dataset = reopen_dataset(source.header.dataset, root=options.root)
        dataset.require_classes(source.header.classes, options.cams)
        records = dataset.find(source.images.ids, options.cams)
        require_boxes(source.header, records, dataset, options.cams)
        constrained = BOX_CONSTRAINED in source.header.protocol
        skip = options.on_error == "skip"
        rules = Rules(source.thresholds, options.confidence, begin, options.sure, skip, constrained)
        yield Refinement(source, dataset, records, rules)


def check_confidence(options: RefinerOptions, source: MapsInput) -> None:
    """Refuse a confidence rule that lacks its thresholds.

    Raises:
        InputError: The maps are no CAMs, or the thresholds have no low or no high one.
    """
    if options.confidence in ("none", "posterior"):
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


def refine(tasks: Sequence[RefineTask], rules: Rules, refiner: Refiner) -> list[dict[int, np.ndarray] | str]:
    """The soft labels of images of one size, or why an image has none; runs in a worker process.

    Args:
        tasks: Each image's maps, CAMs where ``rules`` have thresholds, else soft labels; and its record.
        rules: How labels are made.
        refiner: What refines them.

    Returns:
        For each image class index to uint8 (H, W), 0-255; or a reason.

    Raises:
        DatasetError: A photograph is unreadable or of another size, and the rules do not skip it.
    """
    starts = [make_start(task, rules) for task in tasks]
    usable = [start for start in starts if not isinstance(start, str)]
    refined = iter(refiner(usable) if usable else ())
    return [start if isinstance(start, str) else soft_labels(start, next(refined), rules) for start in starts]


def make_start(task: RefineTask, rules: Rules) -> Start | str:
    """What an image's refiner starts from, or why there is nothing.

    Raises:
        DatasetError: As of ``refine``.
    """
    item, record = task
    if item.skipped is not None:
        return item.skipped
    try:
        image = read_photograph(record, item.size)
    except DatasetError as error:
        if rules.skip:
            return str(error)
        raise
    labels, maps = at_size(item.maps, item.size)
    if rules.thresholds is None:
        kept = maps[labels != IGNORE]
        ignored = maps[labels == IGNORE]
        unlabelled = ignored[0] > 0.5 if len(ignored) else None
        return Start(record, image, labels[labels != IGNORE], (kept / kept.sum(axis=0),), unlabelled)
    runs, unlabelled = runs_of_cams(labels, maps, rules.thresholds, rules.confidence, rules.begin)
    return Start(record, image, np.concatenate([[0], labels]), runs, unlabelled)


def runs_of_cams(
    labels: np.ndarray, maps: np.ndarray, thresholds: Thresholds, confidence: str, begin: Begin
) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """What a refiner of CAMs starts from, and which pixels stay unlabelled whatever it finds.

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        thresholds: By class index; low and high ones where a rule needs them.
        confidence: As of ``Rules``.
        begin: Likewise.

    Returns:
        float32 (P + 1, H, W) each, background first, summing to 1; bool (H, W), or None.
    """
    bounds: tuple[np.ndarray, ...] = (thresholds.value,)
    unlabelled = None
    if thresholds.low is not None and thresholds.high is not None:
        if confidence == "irn":
            bounds = (thresholds.high, thresholds.low)
        elif confidence == "cosa":
            unlabelled = assign_confident(labels, maps, thresholds.low, thresholds.high) == IGNORE
    return tuple(begin(labels, maps, bound) for bound in bounds), unlabelled


def soft_labels(start: Start, refined: Sequence[np.ndarray], rules: Rules) -> dict[int, np.ndarray]:
    """What is stored of an image.

    Args:
        start: What its refiner started from.
        refined: float32 (K, H, W), summing to 1: what each run has become.
        rules: How labels are made.

    Returns:
        Class index to uint8 (H, W), 0-255; 255 to 255 where a pixel is unlabelled, if a rule can leave any so.
    """
    found, unlabelled = refined[0], start.unlabelled
    if len(refined) > 1:
        unlabelled = (found.argmax(axis=0) == 0) & (refined[1].argmax(axis=0) > 0)
    if rules.confidence == "posterior":
        unsure = found.max(axis=0) < rules.sure
        unlabelled = unsure if unlabelled is None else unlabelled | unsure
    if rules.constrained:
        found = constrain_probabilities(start.labels, found, start.record)
    stored = dict(zip(start.labels.tolist(), quantise(found), strict=True))
    if unlabelled is not None:
        stored[IGNORE] = unlabelled * np.uint8(255)
    return stored


def _text(threshold: np.ndarray) -> str:
    """One number for thresholds by class, if they are one."""
    values = np.unique(threshold[1:])
    return f"{values[0]:.3g}" if len(values) == 1 else "per class"
