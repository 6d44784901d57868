"""The ways to find thresholds: by hand, from the maps' values alone, or by a sweep against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pseudolabel.artefacts import Input, MapsReader
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.ground_truth import complain, require_objects
from pseudolabel.data.opening import restated
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.labels.assignment import Thresholds, assign
from pseudolabel.labels.inputs import MapsTask
from pseudolabel.labels.mixture import BINS, Cut, UnfitError, as_histogram, count_values, cut_by_three, cut_by_two
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, error_shares, iou, rounded
from pseudolabel.metrics.sweep import THRESHOLDS, count_levels, curve_counts
from pseudolabel.options import SearchThresholdOptions
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

FEW = 100
"""Up to so many images, worker processes start more slowly than one process sweeps."""

CUTS = {"mixture": cut_by_two, "released": cut_by_three}
CountMaps = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Truth, labels and full-size maps of one image to counts."""


@dataclass(frozen=True)
class Found:
    """What a method has found.

    Attributes:
        thresholds: By class index; background's is that of all classes together.
        fitted_on: What they were fitted on, in words.
        images: How many images that were.
        arrays: The curve or the histogram behind them.
        scores: What a sweep knows about label maps made with them.
        fallback: Classes that got the threshold of all classes together.
        oracle: Why pixel masks were used.
        inputs: What was read besides the maps.
    """

    thresholds: Thresholds
    fitted_on: str
    images: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)
    fallback: tuple[str, ...] = ()
    oracle: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()


def fixed(options: SearchThresholdOptions, reader: MapsReader) -> Found:
    """The threshold that the options name."""
    return Found(by_hand(options, np.full(len(reader.header.classes), options.value)), "nothing (fixed)", 0)


def by_hand(
    options: SearchThresholdOptions, value: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None
) -> Thresholds:
    """Thresholds (C + 1,) with low and high ones replaced by those that the options name."""
    low = low if options.low is None else np.full(len(value), options.low)
    high = high if options.high is None else np.full(len(value), options.high)
    return Thresholds(value, low, high)


def fitted(options: SearchThresholdOptions, reader: MapsReader, progress: Progress) -> Found:
    """Thresholds from the maps' values alone.

    Raises:
        InputError: There is no map, or the values have nothing to separate.
        ArtefactError: A map holds something else than numbers from 0 to 1.
    """
    if options.minimum >= 1:
        raise InputError("--minimum 1 drops every value; pass a smaller one")
    classes = reader.header.classes
    counts, images, maps = count_maps(options, reader, progress)
    cut = CUTS[options.method]
    try:
        if not maps:
            raise UnfitError("no map")
        common = cut(as_histogram(counts[0], options.minimum))
    except UnfitError as error:
        raise InputError(
            f"{options.cams} has {error} above --minimum {options.minimum:g}, "
            "which do not part object from background; pass a smaller --minimum, or --method fixed and --value"
        ) from error
    cuts = [common] * len(classes)
    fallback = []
    for label in range(1, len(classes)) if options.per_class else ():
        try:
            cuts[label] = cut(as_histogram(counts[label], options.minimum))
        except UnfitError:
            fallback.append(classes[label])
    low, value, high = (np.array([getattr(item, name) for item in cuts]) for name in ("low", "value", "high"))
    return Found(
        by_hand(options, value, low, high),
        f"values of {maps} maps of split {reader.header.dataset.get('split', 'unknown')}, no masks",
        images,
        mixture_arrays(options, counts, cuts),
        fallback=tuple(fallback),
    )


def count_maps(options: SearchThresholdOptions, reader: MapsReader, progress: Progress) -> tuple[np.ndarray, int, int]:
    """Histograms of the maps' values at their own grid.

    Returns:
        int64 (C + 1, BINS): row 0 of the strongest map at every pixel, the others of each class's maps; how many images
        have maps; how many maps there are.
    """
    counts = np.zeros((len(reader.header.classes), BINS), dtype=np.int64)
    images = maps = 0
    with progress.track(len(reader), "images") as advance:
        for index in range(len(reader)):
            stored = {label: array.astype(np.float32) for label, array in reader.maps(index).items()}
            if stored:
                strongest = np.max(list(stored.values()), axis=0)
                counts[0] += count_values(strongest, options.minimum)
                for label, array in stored.items() if options.per_class else ():
                    counts[label] += count_values(array, options.minimum)
                images, maps = images + 1, maps + len(stored)
            advance(1)
    return counts, images, maps


def mixture_arrays(options: SearchThresholdOptions, counts: np.ndarray, cuts: list[Cut]) -> dict[str, np.ndarray]:
    """Histogram and components behind the thresholds; one row a class where each has its own."""
    rows = slice(None) if options.per_class else 0
    return {
        "histogram/edges": as_histogram(counts[0], options.minimum).edges,
        "histogram/counts": counts[rows],
        "mixture/weight": np.stack([cut.mixture.weight for cut in cuts])[rows],
        "mixture/mean": np.stack([cut.mixture.mean for cut in cuts])[rows],
        "mixture/deviation": np.stack([cut.mixture.deviation for cut in cuts])[rows],
    }


def sweep(options: SearchThresholdOptions, reader: MapsReader, progress: Progress) -> Found:
    """The thresholds with the best IoU against the masks.

    Raises:
        InputError: There is no image, no true pixel of any class, or the data set has other classes than the maps.
        DatasetError: Ground truth is missing, unreadable or of another size.
    """
    pairs = open_pairs(options, reader)
    classes = pairs.dataset.classes
    histogram = pairs.total(partial(count_levels, classes=len(classes)), progress)
    counts = curve_counts(histogram)
    by_class = iou(counts)
    miou = class_mean(by_class)
    best = int(np.nanargmax(miou))
    value, final = np.full(len(classes), THRESHOLDS[best]), counts[best]
    fallback: list[str] = []
    scores: dict[str, float | None] = {}
    if options.per_class:
        own = counts[0, :, 2].astype(bool) & (counts[0, :, 1] > 0)  # with maps, and in the truth
        own[0] = False
        value[own] = THRESHOLDS[by_class[:, own].argmax(axis=0)]
        fallback = [name for name, is_own in zip(classes[1:], own[1:], strict=True) if not is_own]
        final = pairs.total(partial(count_assigned, classes=len(classes), threshold=value), progress)
        scores["single_miou"] = rounded(miou[best])
    errors = [class_mean(share) for share in error_shares(counts)]
    means = [class_mean(share) for share in (iou(final), *error_shares(final))]
    scores |= dict(zip(("miou", "false_positives", "false_negatives"), map(rounded, means), strict=True))
    return Found(
        by_hand(options, value),
        f"masks of split {pairs.dataset.split} (oracle)",
        len(pairs.records),
        {
            "curve/threshold": THRESHOLDS,
            "curve/miou": miou,
            "curve/false_positives": errors[0],
            "curve/false_negatives": errors[1],
            "curve/iou": by_class,
        },
        scores,
        tuple(fallback),
        (f"threshold swept against the masks of split {pairs.dataset.split}",),
        (pairs.dataset.as_input(),),
    )


@dataclass(frozen=True)
class Pairs:
    """Maps and ground truth of the same images.

    Attributes:
        options: For the processes.
        reader: The maps.
        dataset: The ground truth.
        indices: Of the images in the artefact; those that an earlier stage has skipped are left out.
        records: Of the same images in the data set.
    """

    options: SearchThresholdOptions
    reader: MapsReader
    dataset: Dataset
    indices: Sequence[int]
    records: Sequence[Record]

    def total(self, count: CountMaps, progress: Progress) -> np.ndarray:
        """The sum of an image's counts over all images, in parallel over processes.

        Raises:
            DatasetError: Ground truth is missing, unreadable or of another size.
        """
        work = partial(compare, read_mask=self.dataset.read_mask, count=count)
        few = self.options.workers is None and len(self.records) <= FEW
        results = ordered_map(work, self._tasks(), workers=0 if few else self.options.workers)
        total = np.zeros(())
        faults = []
        with progress.track(len(self.records), "images") as advance, closing(results):
            for found in results:
                if isinstance(found, str):
                    faults.append(found)
                else:
                    total = total + found
                advance(1)
        complain(f"{self.options.cams} does not fit the masks of split {self.dataset.split}", faults)
        return total

    def _tasks(self) -> Iterator[tuple[Record, MapsTask]]:
        for index, record in zip(self.indices, self.records, strict=True):
            yield record, MapsTask(self.reader.size(index), self.reader.maps(index))


def open_pairs(options: SearchThresholdOptions, reader: MapsReader) -> Pairs:
    """Find the ground truth of the maps' images.

    Raises:
        InputError: There is no image, or the data set has other classes.
        DatasetError: An image is not in the data set, or no mask holds a class.
    """
    dataset = reopen_dataset(restated(reader.header.dataset, options), root=options.root)
    dataset.require_classes(reader.header.classes, options.cams, masks=True)
    indices = [index for index, name in enumerate(reader.images.ids) if name not in reader.skipped]
    records = dataset.find([reader.images.ids[index] for index in indices], options.cams)
    if not records:
        raise InputError(f"{options.cams} holds no image that could be compared with masks")
    require_objects(dataset, records)
    return Pairs(options, reader, dataset, indices, records)


def compare(
    task: tuple[Record, MapsTask], *, read_mask: Callable[[Record], np.ndarray], count: CountMaps
) -> np.ndarray | str:
    """Count one image, or say what is wrong with it; runs in a worker process."""
    record, item = task
    try:
        truth = read_mask(record)
    except DatasetError as error:
        return str(error)
    if truth.shape != item.size:
        sizes = [f"{width} x {height}" for height, width in (item.size, truth.shape)]
        return f"the maps of {record.id!r} are for {sizes[0]} pixels, its ground truth has {sizes[1]}"
    return count(truth, *at_size(item.maps, item.size))


def count_assigned(
    truth: np.ndarray, labels: np.ndarray, maps: np.ndarray, *, classes: int, threshold: np.ndarray
) -> np.ndarray:
    """Class counts (K, 3) of the label map that thresholds (C + 1,) make."""
    counter = PixelCounter(classes, boundary=None, ignored="background")
    return class_counts(counter.table(truth, assign(labels, maps, threshold)), "background")
