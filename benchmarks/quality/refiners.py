"""What affinities and refiners make of the same CAMs, on voc-mini's train.txt: mIoU, boundary IoU and time.

    python -m benchmarks.quality.refiners --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors

A CAM network is trained on each half of train.txt, as voc-mini/multi-stage trains it but for twice the epochs, so that
it takes as many steps, and labels its own half with the image tags: the pseudo labels that a segmenter would learn
from. Rows of affinities are cut at the mixture's threshold; rows of refiners start from the maps of row "mean, twice"
and their threshold. The pixel counts of both halves are added before the mean over classes. ``seconds`` are those of
make-cams or of the refiner, for all 500 photographs, in one process. val.txt is not touched, and no mask but for the
scores. Writes a row a choice and seed, and can be stopped and run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.halves import mean_iou, write_halves
from benchmarks.quality.trials import CAM_LOOKS, rows_parser, run_rows
from pseudolabel.artefacts import open_artefact, read_header
from pseudolabel.options import (
    EvaluateMasksOptions,
    ExportMasksOptions,
    MakeCamsOptions,
    RefineCrfOptions,
    RefineParOptions,
    SearchThresholdOptions,
)
from pseudolabel.runs.pipeline import find_config, read_pipeline
from pseudolabel.runs.runner import run_pipeline
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.refine_crf import refine_crf
from pseudolabel.stages.refine_par import refine_par
from pseudolabel.stages.search_threshold import search_threshold

BASE = "mean, twice"
AFFINITIES: dict[str, dict[str, Any]] = {
    BASE: {},
    "none": {"propagate": 0},
    "mean, once": {"propagate": 1},
    "mean, 3 times": {"propagate": 3},
    "mean, 4 times": {"propagate": 4},
    "mean, last 8 blocks": {"attention_blocks": tuple(range(4, 12))},
    "mean, boxes 0.4": {"class_boxes": 0.4},
    "mean, scales 1, 0.5": {"affinity_scales": (1, 0.5)},
    "mean, scales 1, 1.5": {"affinity_scales": (1, 1.5)},
    "caa": {"affinity": "caa"},
    "caa, 4 times": {"affinity": "caa", "propagate": 4},
    "caa, boxes 0.4": {"affinity": "caa", "class_boxes": 0.4},
    "caa, boxes 0.4, last 8 blocks": {"affinity": "caa", "class_boxes": 0.4, "attention_blocks": tuple(range(4, 12))},
    "features": {"affinity": "features"},
}
"""Of each row: what is changed in make-cams."""

Step = tuple[str, dict[str, Any]]
PAR: Step = ("par", {})
CRF: Step = ("crf", {"preset": "toco-labels"})
REFINERS: dict[str, tuple[Step, ...]] = {
    **{f"crf {name}": (("crf", {"preset": name}),) for name in ("toco-labels", "irn", "deeplab", "psa", "toco")},
    "par": (PAR,),
    "par, 20 iterations": (("par", {"iterations": 20}),),
    "par, ratio": (("par", {"start": "ratio"}),),
    "par, full size": (("par", {"downscale": 1}),),
    "par, then crf": (("par", {"start": "ratio"}), CRF),
    "crf, then par": (CRF, PAR),
}
"""Of each row: the refiners, one after the other."""

ROWS = {**AFFINITIES, **REFINERS}
COLUMNS = ("choice", "seed", "labels", "boundary", "first", "second", "threshold", "seconds")


def main() -> None:
    """Make every row that the CSV does not hold yet."""
    arguments = rows_parser(__doc__, __file__, ROWS, default=ROWS).parse_args()
    halves = write_halves(arguments.root, arguments.work)
    run_rows(arguments, lambda name, seed: one(arguments, name, seed, halves), COLUMNS)


def one(arguments: argparse.Namespace, name: str, seed: int, halves: tuple[Path, Path]) -> dict[str, Any]:
    """Both halves of a row."""
    found = [run(arguments, name, seed, half) for half in halves]
    first, second = (half["confusion"] for half in found)
    return {
        "labels": mean_iou(first + second),
        "boundary": round(50 * sum(half["boundary"] for half in found), 2),
        "first": mean_iou(first),
        "second": mean_iou(second),
        "threshold": round(sum(half["threshold"] for half in found) / 2, 3),
        "seconds": round(sum(half["seconds"] for half in found), 1),
    }


def run(arguments: argparse.Namespace, name: str, seed: int, half: Path) -> dict[str, Any]:
    """The labels of one half, and their scores."""
    folder = arguments.work / f"{seed}-{half.stem}"
    checkpoint = train(arguments, seed, half, folder)
    base = folder / "cams.h5"
    cams = base if name in REFINERS or name == BASE else folder / "row.h5"
    seconds = 0.0
    if cams != base or not base.exists():
        seconds = propagated(checkpoint, half, cams, AFFINITIES.get(name, {}))
    threshold = cams.with_name("threshold.h5")
    search_threshold(SearchThresholdOptions(cams=cams, out=threshold, overwrite=True, workers=1))
    labels, cut = cams, {"threshold": threshold}
    for number, (refiner, settings) in enumerate(REFINERS.get(name, ())):
        begin = time.perf_counter()
        out = folder / f"soft-{number}.h5"
        places = {"cams": labels, "out": out, "overwrite": True, "workers": 1, **cut, **settings}
        if refiner == "crf":
            refine_crf(RefineCrfOptions(**places), RichProgress())
        else:
            refine_par(RefineParOptions(**places, device="cpu"), RichProgress())
        seconds, labels, cut = seconds + time.perf_counter() - begin, out, {}
    export_masks(ExportMasksOptions(labels=labels, out=folder / "masks", overwrite=True, workers=1, **cut))
    scores = evaluate_masks(EvaluateMasksOptions(masks=folder / "masks", overwrite=True, workers=1))
    with open_artefact(folder / "masks" / "scores.h5", "scores") as artefact:
        confusion: np.ndarray = artefact.file["confusion"][:]
    return {
        "confusion": confusion,
        "boundary": scores["boundary_iou"],
        "threshold": read_header(threshold).facts["value"],
        "seconds": seconds,
    }


def train(arguments: argparse.Namespace, seed: int, half: Path, folder: Path) -> Path:
    """The CAM network of a half, trained if it is not there."""
    pipeline = read_pipeline(
        find_config("voc-mini/multi-stage"),
        {
            "defaults.root": str(arguments.root.resolve()),
            "defaults.seed": str(seed),
            "cam.weights": str(arguments.weights.resolve()),
            "cam.split": str(half),
            "cam.epochs": "16",
        },
        folder,
    )
    found: Path = next(step.options.artefact for step in pipeline.steps if step.key == "cam")
    if not found.exists():
        run_pipeline(pipeline, RichProgress(), only=("cam",))
    return found


def propagated(checkpoint: Path, half: Path, out: Path, changes: dict[str, Any]) -> float:
    """Make CAMs as voc-mini/multi-stage does, but for the changes; returns the seconds that it took."""
    begin = time.perf_counter()
    settings = {**CAM_LOOKS, "head": "main", **changes}
    make_cams(
        MakeCamsOptions(checkpoint=checkpoint, split=str(half), out=out, overwrite=True, workers=0, **settings),
        RichProgress(),
    )
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
