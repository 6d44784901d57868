"""What benchmarks share that try one choice after another on voc-mini: their lists, rows, settings and scores."""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser
from pseudolabel.artefacts import open_artefact
from pseudolabel.options import EvaluateMasksOptions, PredictMasksOptions, SearchThresholdOptions
from pseudolabel.runs.pipeline import find_config, read_pipeline
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.search_threshold import search_threshold

LOOKS: dict[str, Any] = {"size": 448, "scales": (1, 0.75, 1.25)}
"""How predict-masks of the packaged pipelines looks at a photograph."""

CAM_LOOKS: dict[str, Any] = {"size": 320, "scales": (1, 0.5, 1.5, 0.75, 1.25)}
"""How their make-cams does."""


def rows_parser(doc: str, script: str, rows: Mapping[str, Any], default: Iterable[str]) -> argparse.ArgumentParser:
    """As ``make_parser`` for a CSV, with the arguments of a benchmark that trains a network a row and seed.

    Args:
        doc: The script's docstring.
        script: Its ``__file__``.
        rows: Every row by its name.
        default: The names of those that are run where none are asked for.
    """
    stem = Path(script).stem
    work = Path("work") / stem.replace("_", "-")
    parser = make_parser(doc, script, results=f"{stem}.csv")
    parser.add_argument("--root", type=Path, required=True, help="voc-mini")
    parser.add_argument("--weights", type=Path, required=True, help="of the backbone")
    parser.add_argument("--work", type=Path, default=work, help="(default: %(default)s)")
    parser.add_argument("--rows", nargs="+", choices=list(rows), default=list(default), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the training (default: 0)")
    return parser


def split_lists(root: Path, work: Path) -> tuple[Path, Path]:
    """Write two lists of ids: four fifths of train.txt to train on, one fifth to choose on."""
    ids = shuffled_train(root)
    cut = len(ids) // 5
    return write_list(work / "fit.txt", ids[cut:]), write_list(work / "dev.txt", ids[:cut])


def shuffled_train(root: Path) -> list[str]:
    """The ids of train.txt in an order that is always the same."""
    ids = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    return [ids[index] for index in np.random.default_rng(0).permutation(len(ids))]


def write_list(path: Path, ids: Iterable[str]) -> Path:
    """Write a list of ids, sorted; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in sorted(ids)))
    return path


def run_rows(
    arguments: argparse.Namespace, one: Callable[[str, int], Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """Make every row asked for that the CSV does not hold yet, and write it after each one.

    Args:
        arguments: Of ``rows_parser``.
        one: A row's name and seed to its figures.
        columns: Of the CSV.
    """
    for seed in arguments.seeds:
        for name in arguments.rows:
            if not is_done(arguments.results, name, seed):
                row = {"choice": name, "seed": seed, **one(name, seed)}
                print(row, flush=True)
                # read again: others may have written meanwhile
                write_rows(arguments.results, [*read_rows(arguments.results), row], columns)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the CSV so far, all values as text."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def write_rows(path: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write all rows of the CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def is_done(path: Path, name: str, seed: int) -> bool:
    """Whether the CSV holds this choice and seed."""
    return (name, str(seed)) in {(row["choice"], row["seed"]) for row in read_rows(path)}


def by_choice(rows: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    """The figures of each choice, one a seed."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["choice"], []).append(float(row[key]))
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):5.2f} ± {deviation(values):4.2f}"


def deviation(values: Sequence[float]) -> float:
    """The standard deviation; of one seed none is known."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def packaged_settings(pipeline: str, key: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that a packaged pipeline gives a training.

    Args:
        pipeline: For instance ``voc-mini/cosa``.
        key: Of the training in it, which begins with weights.
        arguments: Of ``rows_parser``: where data set and weights lie here.
    """
    places = {f"{key}.weights": str(arguments.weights), "defaults.root": str(arguments.root)}
    steps = read_pipeline(find_config(pipeline), places).steps
    return next(step.options for step in steps if step.key == key).model_dump()


def score_network(checkpoint: Path, split: str) -> dict[str, float]:
    """mIoU of what a network predicts of a split, without and with the image tags, in per cent."""
    masks = checkpoint.with_suffix("")
    predict_masks(PredictMasksOptions(checkpoint=checkpoint, split=split, out=masks, overwrite=True, **LOOKS))
    scores = evaluate_masks(EvaluateMasksOptions(masks=masks, boundary=None, overwrite=True))
    found = {"miou": scores["miou"], "miou_tags": scores["tag_filtered"]["miou"]}
    return {name: round(100 * value, 2) for name, value in found.items()}


def score_cams(cams: Path) -> dict[str, float]:
    """mIoU of maps in per cent, at the mixture's threshold and at the best one (an oracle), and both thresholds."""
    curve = cams.with_name("threshold.h5")
    mixture, best = (
        search_threshold(SearchThresholdOptions(cams=cams, out=curve, method=method, overwrite=True, workers=1))
        for method in ("mixture", "sweep")
    )
    with open_artefact(curve, "thresholds") as artefact:
        thresholds, scores = (artefact.file[f"curve/{name}"][:] for name in ("threshold", "miou"))
    return {
        "miou": round(100 * best["miou"], 2),
        "best_threshold": best["value"],
        "mixture_threshold": round(mixture["value"], 3),
        "miou_at_mixture": round(100 * float(np.interp(mixture["value"], thresholds, scores)), 2),
    }
