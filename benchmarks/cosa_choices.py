"""What each part of co-training, and each choice of its settings, brings on voc-mini.

    python benchmarks/cosa_choices.py --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --rows base "c2s 0.1" --seeds 0

The base is train-cosa as the packaged pipeline voc-mini/cosa runs it. Each row changes one thing, trains on four fifths
of train.txt (of which a tenth is held out for the tags' precision) and is scored on the other fifth: the segmentation
without and with the image tags, and the maps of both heads at their best threshold (an oracle) and of the auxiliary
head at the mixture's. val.txt is not touched. Writes a row a choice and seed, and can be stopped and run again.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from choices import miou_at, split_lists, write
from common import make_parser

from pseudolabel.artefacts import read_header
from pseudolabel.options import (
    EvaluateMasksOptions,
    MakeCamsOptions,
    PredictMasksOptions,
    SearchThresholdOptions,
    TrainCosaOptions,
)
from pseudolabel.pipeline import find_config, read_pipeline
from pseudolabel.progress import RichProgress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.search_threshold import search_threshold
from pseudolabel.stages.train_cosa import train_cosa

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    # one part off at a time
    "no c2s": {"c2s": None},
    "no s2c": {"s2c": None},
    "no regulariser": {"regulariser": None},
    "no contrastive term": {"contrastive": None},
    "no perplexity weights": {"perplexity": None},
    "thresholds 0.70, 0.25": {"threshold": "fixed", "low": 0.25, "high": 0.70},
    "thresholds 0.65, 0.35": {"threshold": "fixed", "low": 0.35, "high": 0.65},
    "thresholds 0.55, 0.25": {"threshold": "fixed", "low": 0.25, "high": 0.55},
    "thresholds 0.55, 0.25, c2s 1": {"threshold": "fixed", "low": 0.25, "high": 0.55, "c2s": 1.0},
    "released rule of three": {"threshold": "released"},
    # as released, but for schedule and network
    "as released": {
        "threshold": "fixed",
        "low": 0.25,
        "high": 0.70,
        "cam_rule": "released",
        "perplexity": None,
        "contrastive": None,
        "c2s": 0.1,
        "balanced": True,
        "auxiliary_share": 0.5,
        "teacher_scales": (1.0, 0.5, 1.5),
    },
    # settings
    "c2s 0.1": {"c2s": 0.1},
    "c2s 1": {"c2s": 1.0},
    "balanced": {"balanced": True},
    "auxiliary share 0.5": {"auxiliary_share": 0.5},
    "teacher scale 1": {"teacher_scales": (1.0,)},
    "teacher scales 1, 0.5, 1.5": {"teacher_scales": (1.0, 0.5, 1.5)},
    "teacher not mirrored": {"teacher_flip": False},
    "views from 0.6 of the area": {"view_area": (0.6, 1.0)},
    "twice the epochs": {"epochs": 32},
    "crop 320": {"crop": 320},
}
NETWORK = ("miou", "miou_tags")
COLUMNS = ("choice", "seed", "tag_map", *NETWORK, "main", "auxiliary", "mixture_threshold", "at_mixture", "seconds")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    parser = make_parser(__doc__, __file__, results="cosa_choices.csv")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/cosa-choices"))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    fit, dev = split_lists(arguments.root, arguments.work)
    rows = list(csv.DictReader(arguments.results.open())) if arguments.results.exists() else []
    done = {(row["choice"], int(row["seed"])) for row in rows}
    for seed in arguments.seeds:
        for name in arguments.rows:
            if (name, seed) in done:
                continue
            begin = time.perf_counter()
            checkpoint = arguments.work / f"{name.replace(' ', '_').replace(',', '')}-{seed}.h5"
            if not checkpoint.exists():
                train_cosa(settings(arguments, fit, checkpoint, {**ROWS[name], "seed": seed}), RichProgress())
            row = {"choice": name, "seed": seed, **score(checkpoint, dev)}
            rows.append(row | {"seconds": round(time.perf_counter() - begin, 1)})
            print(rows[-1], flush=True)
            write(arguments.results, rows, COLUMNS)


def settings(arguments: Any, fit: Path, out: Path, changes: dict[str, Any]) -> TrainCosaOptions:
    """The pipeline's train-cosa on four fifths of its split, with these changes."""
    places_of_pipeline = {"cosa.weights": str(arguments.weights), "defaults.root": str(arguments.root)}
    steps = read_pipeline(find_config("voc-mini/cosa"), places_of_pipeline).steps
    base = next(step.options for step in steps if step.stage == "train-cosa")
    places = {"root": arguments.root, "weights": arguments.weights, "split": str(fit), "out": out}
    return TrainCosaOptions(**{**base.model_dump(), **places, **changes})


def score(checkpoint: Path, dev: Path) -> dict[str, Any]:
    """A row's figures, in per cent but for thresholds."""
    folder, again = checkpoint.with_suffix(""), {"overwrite": True}
    looks = {"size": 448, "scales": (1, 0.75, 1.25)}
    predict_masks(PredictMasksOptions(checkpoint=checkpoint, split=str(dev), out=folder, **looks, **again))
    network = evaluate_masks(EvaluateMasksOptions(masks=folder, boundary=None, resamples=0, **again))
    found = {"miou": network["miou"], "miou_tags": network["tag_filtered"]["miou"]}
    cams, curve = folder / "cams.h5", folder / "threshold.h5"
    scales = {"size": 320, "scales": (1, 0.5, 1.5, 0.75, 1.25)}
    at_mixture = 0.0
    for head in ("main", "auxiliary"):
        make_cams(MakeCamsOptions(checkpoint=checkpoint, split=str(dev), head=head, out=cams, **scales, **again))
        mixture = search_threshold(SearchThresholdOptions(cams=cams, out=curve, **again))["value"]
        found[head] = search_threshold(SearchThresholdOptions(cams=cams, out=curve, method="sweep", **again))["miou"]
        at_mixture = miou_at(curve, mixture)
    return {
        "tag_map": round(read_header(checkpoint).facts["tag_map"], 4),
        **{name: round(100 * value, 2) for name, value in found.items()},
        "mixture_threshold": round(mixture, 3),
        "at_mixture": round(100 * at_mixture, 2),
    }


if __name__ == "__main__":
    main()
