"""What the labels cut from CAMs are worth by pooling, head and attention affinity propagation, on voc-mini's train.txt.

    python -m benchmarks.quality.pooling --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors

A CAM network is trained on each half of train.txt, as voc-mini/multi-stage trains it but for the pooling, and labels
its own half with the image tags at the mixture's threshold, without a CRF: the pseudo labels that a segmenter would
learn from. In 8 epochs a half takes half of the pipeline's steps, in 16 as many. mIoU in per cent, of each half, their
mean, and the mean at the best threshold of each (an oracle). val.txt is not touched, and no mask but for the scores.
Writes a row a choice and seed, and can be stopped and run again.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.quality.halves import write_halves
from benchmarks.quality.trials import rows_parser, run_rows
from pseudolabel.artefacts import read_header
from pseudolabel.options import SearchThresholdOptions
from pseudolabel.runs.pipeline import find_config, read_pipeline
from pseudolabel.runs.runner import run_pipeline
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.search_threshold import search_threshold

ROWS: dict[str, dict[str, Any]] = {
    f"{pooling}, {epochs} epochs, {head} head, propagated {times} times": {
        "pooling": pooling, "epochs": epochs, "head": head, "propagate": times
    }
    for epochs, pooling, head, times in product((8, 16), ("gap", "gmp"), ("main", "auxiliary"), (0, 2))
}  # fmt: skip
"""Of each row: pooling and epochs of train-cam, and the head and steps of propagation of make-cams."""

STAGES = ("cam", "cams", "threshold", "plain", "plain-scores")
COLUMNS = ("choice", "seed", "labels", "first", "second", "best", "tag_map", "threshold", "seconds")


def main() -> None:
    """Make every row that the CSV does not hold yet; rows of one pooling share their networks."""
    arguments = rows_parser(__doc__, __file__, ROWS, default=ROWS).parse_args()
    halves = write_halves(arguments.root, arguments.work)
    run_rows(arguments, lambda name, seed: one(arguments, ROWS[name], seed, halves), COLUMNS)


def one(arguments: argparse.Namespace, choice: dict[str, Any], seed: int, halves: tuple[Path, Path]) -> dict[str, Any]:
    """Both halves of a row."""
    begin = time.perf_counter()
    found = [run(arguments, choice, seed, half) for half in halves]
    first, second = (100 * result["miou"] for result in found)
    return {
        "labels": round((first + second) / 2, 2),
        "first": round(first, 2),
        "second": round(second, 2),
        "best": round(100 * sum(result["best"] for result in found) / 2, 2),
        "tag_map": round(sum(result["tag_map"] for result in found) / 2, 4),
        "threshold": round(sum(result["threshold"] for result in found) / 2, 3),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def run(arguments: argparse.Namespace, choice: dict[str, Any], seed: int, half: Path) -> dict[str, Any]:
    """Train on a half, label it, score the labels."""
    pipeline = read_pipeline(
        find_config("voc-mini/multi-stage"),
        {
            "defaults.root": str(arguments.root.resolve()),
            "defaults.seed": str(seed),
            "cam.weights": str(arguments.weights.resolve()),
            "cam.split": str(half),
            "cam.pooling": choice["pooling"],
            "cam.epochs": str(choice["epochs"]),
            "cams.split": str(half),
            "cams.head": choice["head"],
            "cams.propagate": str(choice["propagate"]),
        },
        arguments.work / f"{choice['pooling']}-{choice['epochs']}-{seed}-{half.stem}",
    )
    result = run_pipeline(pipeline, RichProgress(), only=STAGES)
    headers = {step.key: step.options.artefact for step in pipeline.steps}
    cams = headers["cams"]
    sweep: dict[str, Any] = {"method": "sweep", "overwrite": True, "workers": 1}
    best = search_threshold(SearchThresholdOptions(cams=cams, out=cams.with_name("best.h5"), **sweep))
    return {
        "miou": result["scores"]["plain-scores"]["miou"],
        "best": best["miou"],
        "tag_map": read_header(headers["cam"]).facts["tag_map"],
        "threshold": read_header(headers["threshold"]).facts["value"],
    }


if __name__ == "__main__":
    main()
