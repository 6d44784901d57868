"""search-crf: does its criterion without masks rank the dense CRF's settings as their mIoU does?

    python -m benchmarks.quality.search_crf work/cams.h5 work/threshold.h5 --root ../shared/voc-mini --workers 2

CAMS are of voc-mini's train.txt. The images are of the fifth of it on which choices are made (as in choices.py), less
its first 48: on those the criterion itself was chosen among several. The trials are search-crf's own. Intervals are of
1000 bootstrap resamples of the images. Prints the figures as JSON and writes them to
``benchmarks/results/search_crf.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import conditions, make_parser, report
from pseudolabel.data import load_dataset
from pseudolabel.labels.crf_search import Trial, Verdict, draw_trials, judge
from pseudolabel.labels.inputs import MapsInput, open_maps
from pseudolabel.options import CrfOptions
from pseudolabel.pairwise import PRESETS
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.search_crf import score

SEEN = 48
PARTS = ("criterion", "edges", "areas")


def main() -> None:
    """Judge the trials on images that the criterion has not seen, and report how both rankings agree."""
    arguments = parse()
    found, begin = conditions(), time.perf_counter()
    trials = draw_trials(arguments.trials, 0)
    with open_maps(arguments.cams, arguments.threshold, "cams") as source:
        verdicts = verdicts_of(arguments, source, trials)
    seconds = round(time.perf_counter() - begin, 1)
    report(__file__, arguments, found, {"seconds": seconds, **figures(trials, verdicts)}, [])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("cams", type=Path)
    parser.add_argument("threshold", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def verdicts_of(arguments: argparse.Namespace, source: MapsInput, trials: Sequence[Trial]) -> list[Verdict]:
    """What the dev part's images that the criterion was not chosen on say of every trial."""
    ids = (arguments.root / "ImageSets/Segmentation/train.txt").read_text().split()
    order = np.random.default_rng(0).permutation(len(ids))[: len(ids) // 5]
    wanted = [ids[index] for index in order[SEEN:]][: arguments.images]
    dataset = load_dataset(source.header.dataset, root=arguments.root)
    places = {name: index for index, name in enumerate(source.images.ids)}
    records = dataset.find(wanted, arguments.cams)
    tasks = [(source.task(places[record.id]), record) for record in records]
    classes = len(dataset.classes)
    work = partial(judge, trials=trials, thresholds=source.thresholds, read_mask=dataset.read_mask, classes=classes)
    verdicts = []
    results = ordered_map(work, tasks, workers=arguments.workers, window=2)
    with RichProgress().track(len(tasks), "images") as advance, closing(results):
        for verdict in results:
            verdicts.append(verdict)
            advance(1)
    return verdicts


def figures(trials: Sequence[Trial], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Rank correlations with mIoU, and the mIoU of what each score would choose; mIoU in per cent."""
    random, count = np.random.default_rng(0), len(verdicts)
    resampled = [[verdicts[index] for index in random.integers(count, size=count)] for _ in range(1000)]
    drawn = [compare(score(sample)) for sample in resampled]
    intervals = {key: np.percentile([each[key] for each in drawn], (2.5, 97.5)).round(3).tolist() for key in drawn[0]}
    scores = score(verdicts)
    names = [trial.name for trial in trials]
    miou = 100 * scores["miou"][1:]
    chosen = {name: int(values[1:].argmax()) for name, values in scores.items()}
    rows = [{"name": "no CRF"}, *({"name": name} for name in names)]
    return {
        "images": count,
        "settings": len(names),
        "compared": {key: {"value": value, "interval": intervals[key]} for key, value in compare(scores).items()},
        "choices": {name: {"setting": names[row], "miou": round(float(miou[row]), 2)} for name, row in chosen.items()},
        "miou_of_the_default_preset": round(float(miou[names.index(CrfOptions().preset)]), 2),
        "mean_miou_of_all_settings": round(float(miou.mean()), 2),
        "rows": [
            row | {name: round(float(values[place]), 4) for name, values in scores.items()}
            for place, row in enumerate(rows)
        ],
    }


def compare(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Rank correlation of each score with mIoU, and what the criterion's choice gains in points of mIoU."""
    miou = 100 * scores["miou"][1:]
    best = miou[scores["criterion"][1:].argmax()]
    ranks = {f"rank_correlation_{part}": spearmanr(scores[part][1:], miou)[0] for part in PARTS}
    gains = {
        "gain_on_no_crf": best - 100 * scores["miou"][0],
        "gain_on_the_default_preset": best - miou[list(PRESETS).index(CrfOptions().preset)],
        "gain_on_the_mean_setting": best - miou.mean(),
        "loss_to_the_best_setting": miou.max() - best,
    }
    return {key: round(float(value), 3) for key, value in (ranks | gains).items()}


if __name__ == "__main__":
    main()
