"""How often an interval of mIoU holds the score of all images: the jackknife's beside those of a bootstrap.

    python -m benchmarks.quality.intervals work/voc-mini/multi-stage/masks/masks.h5 --root ../shared/voc-mini

The images of one or more masks artefacts are the population. Sets of N of them are drawn with replacement; from each
one, 95 % intervals are computed by the jackknife, as evaluate-masks does, by the percentiles of an ordinary bootstrap
and by BCa of the same resamples (Efron 1987; the acceleration from the jackknife). An interval covers if it holds the
mIoU of the population. Coverage in per cent, and the mean width in points of mIoU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.data import reopen_dataset
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.intervals import Jackknife
from pseudolabel.metrics.scores import class_mean, iou

SIZES = (20, 50, 100, 200, 500)
RESAMPLES = 1000
TAILS = np.array([0.025, 0.975])


def main() -> None:
    """Draw, compute and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("masks", nargs="+", type=Path, help="masks artefacts of images with ground truth")
    parser.add_argument("--root", type=Path, help="of the data set, if it has moved")
    parser.add_argument("--sets", type=int, default=1000, help="drawn of each size (default: %(default)s)")
    arguments = parser.parse_args()
    found = conditions()
    population = np.concatenate([counts_of(path, arguments.root) for path in arguments.masks])
    score = float(class_mean(iou(population.sum(axis=0))))
    sizes = {size: coverage(population, score, size, arguments.sets) for size in SIZES}
    lowest = min(row["jackknife"]["covers"] for row in sizes.values())
    figures = {"images": len(population), "miou": round(100 * score, 2), "sets_of": sizes}
    report(__file__, arguments, found, figures, [target("lowest coverage of the jackknife, %", lowest, ">= 94")])


def counts_of(path: Path, root: Path | None) -> np.ndarray:
    """The class counts of each image of a masks artefact: float64 (N, K, 3)."""
    with open_artefact(path, "masks") as artefact:
        reader = MapsReader(artefact)
        dataset = reopen_dataset(artefact.header.dataset, root=root)
        counter = PixelCounter(len(dataset.classes), boundary=None, ignored="background")
        records = {record.id: record for record in dataset.records}
        tables = [
            counter.table(dataset.read_mask(records[name]), reader.labels(row))
            for row, name in enumerate(reader.images.ids)
        ]
    return class_counts(np.stack(tables), "background")


def coverage(population: np.ndarray, score: float, size: int, sets: int) -> dict[str, dict[str, float]]:
    """By method, how many of the sets' intervals hold the score, and how wide they are."""
    random = np.random.default_rng(size)
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    for _ in range(sets):
        counts = population[random.integers(0, len(population), size)]
        scores = resampled(counts, random)
        for name, method in METHODS.items():
            bounds[name].append(method(counts, scores))
    found = {}
    for name, pairs in bounds.items():
        low, high = np.array(pairs).T
        covers = ((low <= score) & (score <= high)).mean()
        found[name] = {"covers": round(100 * float(covers), 1), "width": round(100 * float((high - low).mean()), 2)}
    return found


def resampled(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """mIoU of resamples of the images (N, K, 3): float64 (R,)."""
    number = len(counts)
    times = random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(np.float64)
    return class_mean(iou((times @ counts.reshape(number, -1)).reshape(RESAMPLES, *counts.shape[1:])))


def by_jackknife(counts: np.ndarray, _: np.ndarray) -> np.ndarray:
    """As evaluate-masks states it."""
    jackknife = Jackknife()
    jackknife.add(counts)
    bounds = jackknife.interval()
    assert bounds is not None
    return bounds


def by_percentiles(_: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Percentiles of the resamples."""
    return np.asarray(np.quantile(scores, TAILS))


def by_bca(counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Percentiles, corrected for bias and acceleration."""
    score = class_mean(iou(counts.sum(axis=0)))
    left_out = class_mean(iou(counts.sum(axis=0) - counts))
    ahead = left_out.mean() - left_out
    acceleration = (ahead**3).sum() / (6 * max((ahead**2).sum() ** 1.5, 1e-12))
    below = np.clip((scores < score).mean(), 1 / RESAMPLES, 1 - 1 / RESAMPLES)
    shift = norm.ppf(below) + norm.ppf(TAILS)
    return np.asarray(np.quantile(scores, norm.cdf(norm.ppf(below) + shift / (1 - acceleration * shift))))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "jackknife": by_jackknife,
    "percentiles": by_percentiles,
    "bca": by_bca,
}


if __name__ == "__main__":
    main()
