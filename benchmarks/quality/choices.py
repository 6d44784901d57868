"""What each choice of the CAM stages brings on voc-mini: made on four fifths of train.txt, scored on the other fifth.

    python -m benchmarks.quality.choices --root voc-mini --weights vit_tiny_patch16_224.safetensors

val.txt is not touched: choices are made here, and the chosen pipeline is scored on val.txt once. Masks of the held-out
fifth serve only to score. Writes benchmarks/results/choices.csv, one row a choice, and can be stopped and run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.common import module_of
from benchmarks.quality.trials import CAM_LOOKS, read_rows, score_cams, split_lists, write_rows
from pseudolabel.artefacts import read_header
from pseudolabel.options import (
    EvaluateMasksOptions,
    ExportMasksOptions,
    MakeCamsOptions,
    RefineCrfOptions,
    SearchThresholdOptions,
    TrainCamOptions,
)
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.refine_crf import refine_crf
from pseudolabel.stages.search_threshold import search_threshold
from pseudolabel.stages.train_cam import train_cam

BASE: dict[str, Any] = {"epochs": 8, "batch_size": 5, "learning_rate": 6e-5, "auxiliary_block": -3, "crop": 224}
TRAININGS: dict[str, dict[str, Any]] = {
    "base": {},
    "epochs 4": {"epochs": 4},
    "epochs 14": {"epochs": 14},
    "gmp": {"pooling": "gmp"},
    "view area from 0.1": {"crop_area": (0.1, 1.0)},
    "crop 320": {"crop": 320},
    "ema 0.999": {"ema": 0.999},
    "batch 20": {"batch_size": 20},
    "auxiliary block -4": {"auxiliary_block": -4},
}
CAMS: dict[str, dict[str, Any]] = {
    "head main": {"head": "main"},
    "head mean": {"head": "mean"},
    "scales 1": {"scales": (1,)},
    "scales 1, 0.5, 1.5, 0.75, 1.25": {"scales": (1, 0.5, 1.5, 0.75, 1.25)},
    "no flip": {"flip": False},
    "size 320": {"size": 320},
    "size 320, scales 1, 0.5, 1.5, 0.75, 1.25": CAM_LOOKS,
    "size 320, scales 1, 0.5, 1.5, 2": {"size": 320, "scales": (1, 0.5, 1.5, 2)},
    "size 672": {"size": 672},
    "normalise max": {"normalise": "max"},
    **{f"propagated {times} times": {"propagate": times} for times in (1, 2, 3, 5)},
    "propagated 2 times, head main": {"propagate": 2, "head": "main"},
    "propagated 2 times, head mean": {"propagate": 2, "head": "mean"},
    "propagated 2 times, scale 1": {"propagate": 2, "scales": (1,)},
    "propagated 2 times, size 336, scales 1, 0.5, 1.5, 0.75, 1.25": {**CAM_LOOKS, "size": 336, "propagate": 2},
    "propagated 2 times, size 320, scales 1, 0.5, 1.5, 0.75, 1.25": {**CAM_LOOKS, "propagate": 2},
    "propagated 3 times, size 320, scales 1, 0.5, 1.5, 0.75, 1.25": {**CAM_LOOKS, "propagate": 3},
}
CRFS: dict[str, dict[str, Any] | None] = {
    "no crf": None,
    **{f"crf {name}": {"preset": name} for name in ("irn", "deeplab", "toco", "toco-labels", "afa", "psa")},
    "crf irn, soft unary": {"preset": "irn", "unary": "soft"},
    "crf toco-labels, hard unary": {"preset": "toco-labels", "unary": "hard"},
}
STANDARD: dict[str, Any] = {"size": 448, "scales": (1, 0.5, 1.5), "propagate": 0}
PASSED_ON: dict[str, Any] = {**CAM_LOOKS, "propagate": 2}
COLUMNS = ("choice", "kind", "tag_map", "miou", "best_threshold", "mixture_threshold", "miou_at_mixture", "seconds")


def main() -> None:
    """Train, make CAMs and refine with each choice that the CSV does not hold yet, and write it after every one."""
    parser = argparse.ArgumentParser(prog=f"python -m {module_of(__file__)}", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/choices"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/choices.csv")
    arguments = parser.parse_args()
    fit, dev = split_lists(arguments.root, arguments.work)
    rows = read_rows(arguments.out)
    done = {(row["choice"], row["kind"]) for row in rows}
    for name, changes in TRAININGS.items():
        checkpoint = arguments.work / f"{name.replace(' ', '_').replace(',', '')}.h5"
        if (name, "training") not in done:
            started = time.perf_counter()
            if not checkpoint.exists():
                train(checkpoint, fit, arguments, changes)
            rows.append(score(name, "training", checkpoint, dev, {}, started))
            write_rows(arguments.out, rows, COLUMNS)
        if name == "base":
            for choice, settings in CAMS.items():
                if (choice, "cams") not in done:
                    rows.append(score(choice, "cams", checkpoint, dev, settings, time.perf_counter()))
                    write_rows(arguments.out, rows, COLUMNS)
            for kind, looks in (("crf", STANDARD), ("crf, propagated", PASSED_ON)):
                for choice, crf in CRFS.items():
                    if (choice, kind) not in done:
                        rows.append(score_crf(choice, kind, checkpoint, dev, looks, crf))
                        write_rows(arguments.out, rows, COLUMNS)


def train(out: Path, split: Path, arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Train a CAM network with the base's options and these changes."""
    options = TrainCamOptions(
        root=arguments.root,
        split=str(split),
        backbone="vit_tiny_patch16_224",
        weights=arguments.weights,
        out=out,
        **{**BASE, **changes},
    )
    train_cam(options, RichProgress())


def score(name: str, kind: str, checkpoint: Path, dev: Path, changes: dict[str, Any], started: float) -> dict[str, Any]:
    """A row of the CSV: the CAMs of a checkpoint at the mixture's and at the best threshold, against the masks."""
    out = checkpoint.with_name("cams.h5")
    settings = {**STANDARD, **changes}
    make_cams(MakeCamsOptions(checkpoint=checkpoint, split=str(dev), out=out, overwrite=True, **settings))
    seconds = round(time.perf_counter() - started, 1)
    tag_map = round(read_header(checkpoint).facts["tag_map"], 4)
    row = {"choice": name, "kind": kind, "tag_map": tag_map, **score_cams(out), "seconds": seconds}
    print(row, flush=True)
    return row


def score_crf(
    name: str, kind: str, checkpoint: Path, dev: Path, looks: dict[str, Any], settings: dict[str, Any] | None
) -> dict[str, Any]:
    """The masks of CAMs made with ``looks`` at the mixture's threshold, after a CRF or without one."""
    work = checkpoint.parent / kind.replace(", ", "-")
    work.mkdir(exist_ok=True)
    cams, threshold, soft, masks = (work / part for part in ("cams.h5", "threshold.h5", "soft.h5", "masks"))
    if not cams.exists():
        make_cams(MakeCamsOptions(checkpoint=checkpoint, split=str(dev), out=cams, **looks))
        search_threshold(SearchThresholdOptions(cams=cams, out=threshold))
    started = time.perf_counter()
    export: dict[str, Any] = {"out": masks, "overwrite": True}
    if settings is None:
        export_masks(ExportMasksOptions(labels=cams, threshold=threshold, **export))
    else:
        refine_crf(RefineCrfOptions(cams=cams, threshold=threshold, out=soft, overwrite=True, **settings))
        export_masks(ExportMasksOptions(labels=soft, **export))
    miou = evaluate_masks(EvaluateMasksOptions(masks=masks, overwrite=True))["miou"]
    row = {"choice": name, "kind": kind, "miou_at_mixture": round(100 * miou, 2)}
    row["seconds"] = round(time.perf_counter() - started, 1)
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
