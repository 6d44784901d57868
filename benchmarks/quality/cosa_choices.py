"""What each part of co-training, and each choice of its settings, brings on voc-mini.

    python -m benchmarks.quality.cosa_choices --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --rows base "c2s 0.1" --seeds 0

The base is train-cosa as the packaged pipeline voc-mini/cosa runs it. Each row changes one thing, trains on four fifths
of train.txt (of which a tenth is held out for the tags' precision) and is scored on the other fifth: the segmentation
without and with the image tags, and the maps of both heads at their best threshold (an oracle) and of the auxiliary
head at the mixture's, propagated as often as in the row's training. val.txt is not touched. Writes a
row a choice and seed, and can be stopped and run again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.quality.trials import (
    CAM_LOOKS,
    packaged_settings,
    rows_parser,
    run_rows,
    score_cams,
    score_network,
    split_lists,
)
from pseudolabel.artefacts import read_header
from pseudolabel.options import MakeCamsOptions, TrainCosaOptions
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.train_cosa import train_cosa

LOW: dict[str, Any] = {"low": 0.35, "high": 0.65}
"""The packaged pipeline's thresholds from commit caa61df to 0bd80a9."""

PLAIN: dict[str, Any] = {**LOW, "propagate": 0, "crop_area": (0.3, 1.0)}
"""Maps as they are, and views as wide as train-cosa's own: the packaged pipeline, but for its threshold, until commit
caa61df."""

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    # one part off at a time
    "maps not passed on": {"propagate": 0},
    "no c2s": {"c2s": None},
    "no s2c": {"s2c": None},
    "no regulariser": {"regulariser": None},
    "no contrastive term": {"contrastive": None},
    "no perplexity weights": {"perplexity": None},
    # thresholds
    "mixture": {"threshold": "mixture"},
    "released rule of three": {"threshold": "released"},
    "thresholds 0.75, 0.5": {"low": 0.5, "high": 0.75},
    "thresholds 0.65, 0.35": LOW,
    "thresholds 0.65, 0.35, views from 0.3 of the area": {**LOW, "crop_area": (0.3, 1.0)},
    "thresholds 0.55, 0.25": {"low": 0.25, "high": 0.55},
    # pooling, and whose maps teach the segmentation
    "gmp": {"pooling": "gmp"},
    "gmp, both maps": {"pooling": "gmp", "auxiliary_share": 0.5},
    "gmp, main maps": {"pooling": "gmp", "auxiliary_share": 0.0},
    "gmp, main maps, mixture": {"pooling": "gmp", "auxiliary_share": 0.0, "threshold": "mixture"},
    "gmp, main maps, thresholds 0.65, 0.35": {**LOW, "pooling": "gmp", "auxiliary_share": 0.0},
    # settings
    "views from 0.3 of the area": {"crop_area": (0.3, 1.0)},
    "views from 0.3 of the area, mixture": {"crop_area": (0.3, 1.0), "threshold": "mixture"},
    "propagated once": {"propagate": 1},
    "propagated 3 times": {"propagate": 3},
    "c2s 0.1": {"c2s": 0.1},
    "c2s 1": {"c2s": 1.0},
    "balanced": {"balanced": True},
    "auxiliary share 0.5": {"auxiliary_share": 0.5},
    "teacher scale 1": {"teacher_scales": (1.0,)},
    "teacher scales 1, 0.5, 1.5": {"teacher_scales": (1.0, 0.5, 1.5)},
    "teacher not mirrored": {"teacher_flip": False},
    "twice the epochs": {"epochs": 32},
    "crop 320": {"crop": 320},
    # before maps were passed on
    "plain maps, mixture": {**PLAIN, "threshold": "mixture"},
    "plain maps, thresholds 0.65, 0.35": PLAIN,
    "plain maps, thresholds 0.55, 0.25": {**PLAIN, "low": 0.25, "high": 0.55},
    "plain maps, thresholds 0.55, 0.25, c2s 1": {**PLAIN, "low": 0.25, "high": 0.55, "c2s": 1.0},
}
NETWORK = ("miou", "miou_tags")
COLUMNS = ("choice", "seed", "tag_map", *NETWORK, "main", "auxiliary", "mixture_threshold", "at_mixture", "seconds")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    arguments = rows_parser(__doc__, __file__, ROWS, default=ROWS).parse_args()
    fit, dev = split_lists(arguments.root, arguments.work)
    run_rows(arguments, lambda name, seed: one(arguments, name, seed, str(fit), str(dev)), COLUMNS)


def one(arguments: Any, name: str, seed: int, fit: str, dev: str) -> dict[str, Any]:
    """Train with a row's changes and score."""
    begin = time.perf_counter()
    checkpoint = arguments.work / f"{name.replace(' ', '_').replace(',', '')}-{seed}.h5"
    if not checkpoint.exists():
        places = {"split": fit, "out": checkpoint, "seed": seed}
        settings = {**packaged_settings("voc-mini/cosa", "cosa", arguments), **places, **ROWS[name]}
        train_cosa(TrainCosaOptions(**settings), RichProgress())
    return {**score(checkpoint, dev), "seconds": round(time.perf_counter() - begin, 1)}


def score(checkpoint: Path, dev: str) -> dict[str, Any]:
    """A row's figures, in per cent but for thresholds."""
    found = score_network(checkpoint, dev)
    header, cams = read_header(checkpoint), checkpoint.with_suffix("") / "cams.h5"
    looks = {**CAM_LOOKS, "propagate": header.options["propagate"]}  # as in training
    maps = {}
    for head in ("main", "auxiliary"):
        make_cams(MakeCamsOptions(checkpoint=checkpoint, split=dev, head=head, out=cams, overwrite=True, **looks))
        maps[head] = score_cams(cams)
    return {
        "tag_map": round(header.facts["tag_map"], 4),
        **found,
        **{head: scores["miou"] for head, scores in maps.items()},
        "mixture_threshold": maps["auxiliary"]["mixture_threshold"],
        "at_mixture": maps["auxiliary"]["miou_at_mixture"],
    }


if __name__ == "__main__":
    main()
