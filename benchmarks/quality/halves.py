"""Settings of whole routes compared on all of train.txt: trained on one half, scored on the other, and the reverse.

    python -m benchmarks.quality.halves --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --rows cosa multi-stage "cosa, no s2c"

Every photograph of train.txt is scored by a network that has not seen it, so that a row stands on 500 photographs
where one of cosa_choices.py stands on 100; each training has half of the photographs and half of the steps. The pixel
counts of both halves are added before the mean over classes. ``labels`` is what the route's labels of the half that it
was trained on are worth before the CRF, mean of both. val.txt is not touched. Writes a row a choice and seed, and can
be stopped and run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cosa_choices import ROWS as CHOICES
from benchmarks.quality.foreground import shares_of
from benchmarks.quality.trials import rows_parser, run_rows, shuffled_train, write_list
from pseudolabel.artefacts import open_artefact
from pseudolabel.metrics.scores import class_mean, iou
from pseudolabel.options.fields import as_word
from pseudolabel.runs.pipeline import find_config, read_pipeline
from pseudolabel.runs.runner import run_pipeline
from pseudolabel.runtime.progress import RichProgress

COSA = (("cosa", "pseudo", "pseudo-scores", "val", "val-scores"), "pseudo")

ROUTES: dict[str, tuple[tuple[str, ...], str]] = {
    "cosa": COSA,
    "cosa-released": COSA,
    "multi-stage": (
        ("cam", "cams", "threshold", "plain", "plain-scores", "soft", "masks", "segmenter", "val", "val-scores"),
        "plain",
    ),
}
"""Of each packaged pipeline: the stages that are run, and which of them writes the labels."""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "multi-stage": ("multi-stage", {}),
    "multi-stage, gmp and main head": ("multi-stage", {"pooling": "gmp", "cams.head": "main"}),
    "multi-stage, gmp and auxiliary head": ("multi-stage", {"pooling": "gmp", "cams.head": "auxiliary"}),
    "multi-stage, gap and main head": ("multi-stage", {"pooling": "gap", "cams.head": "main"}),
    "multi-stage, gap and auxiliary head": ("multi-stage", {"pooling": "gap", "cams.head": "auxiliary"}),
    "cosa": ("cosa", {}),
    "cosa-released": ("cosa-released", {}),
    **{f"cosa, {name}": ("cosa", changes) for name, changes in CHOICES.items() if changes},
}
"""Of each row: the pipeline, and what is changed in its training or, as ``STAGE.NAME``, in another stage."""

COLUMNS = ("choice", "seed", "miou", "miou_tags", "first", "second", "predicted", "missed", "labels", "seconds")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    arguments = rows_parser(__doc__, __file__, ROWS, default=("cosa", "multi-stage")).parse_args()
    halves = write_halves(arguments.root, arguments.work)
    run_rows(arguments, lambda name, seed: one(arguments, name, seed, halves), COLUMNS)


def write_halves(root: Path, work: Path) -> tuple[Path, Path]:
    """Write two lists of ids, every photograph of train.txt in one of them."""
    first, second = np.array_split(shuffled_train(root), 2)
    return write_list(work / "first.txt", first).resolve(), write_list(work / "second.txt", second).resolve()


def one(arguments: argparse.Namespace, name: str, seed: int, halves: tuple[Path, Path]) -> dict[str, Any]:
    """Both trainings of a row, and their figures, in per cent."""
    begin = time.perf_counter()
    runs = [run(arguments, name, seed, fit, held) for fit, held in (halves, halves[::-1])]
    without, within, unlabelled = (runs[0][name] + runs[1][name] for name in ("/", "tag-filtered", "unlabelled"))
    return {
        "miou": mean_iou(without),
        "miou_tags": mean_iou(within),
        "first": mean_iou(runs[1]["/"]),
        "second": mean_iou(runs[0]["/"]),
        **{key: value for key, value in shares_of(without, unlabelled).items() if key != "true"},
        "labels": round(float(np.mean([run["labels"] for run in runs])), 2),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def run(arguments: argparse.Namespace, name: str, seed: int, fit: Path, held: Path) -> dict[str, Any]:
    """Train on one half and predict the other.

    Returns:
        Confusions, integers (K, K), without tags (``/``) and with them (``tag-filtered``); ``unlabelled`` (K,), pixels
        of each class that the first leaves out; and ``labels``.
    """
    route, changes = ROWS[name]
    keys, labels = ROUTES[route]
    first = keys[0]
    pipeline = read_pipeline(
        find_config(f"voc-mini/{route}"),
        {
            "defaults.root": str(arguments.root.resolve()),
            "defaults.seed": str(seed),
            f"{first}.weights": str(arguments.weights.resolve()),
            f"{first}.split": str(fit),
            f"{'cams' if route == 'multi-stage' else labels}.split": str(fit),
            "val.split": str(held),
            **{key if "." in key else f"{first}.{key}": as_word(value) for key, value in changes.items()},
        },
        arguments.work / f"{name.replace(' ', '_').replace(',', '')}-{seed}-{fit.stem}",
    )
    scores = run_pipeline(pipeline, RichProgress(), only=keys)["scores"]
    path = next(step.options.artefact for step in pipeline.steps if step.key == "val-scores")
    with open_artefact(path, "scores") as artefact:
        found = {group: artefact.file[group]["confusion"][:] for group in ("/", "tag-filtered")}
        found["unlabelled"] = artefact.file["unlabelled"][:]
    return {**found, "labels": 100 * scores[f"{labels}-scores"]["miou"]}


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of IoU over the classes of the truth, in per cent, of a confusion (K, K) whose rows are the truth."""
    counts = np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)], axis=-1)
    return round(100 * float(class_mean(iou(counts))), 2)


if __name__ == "__main__":
    main()
