"""What each regularised loss makes of scribbles on voc-mini, beside full masks; and of shorter ones, and of points.

    python benchmarks/scribbles.py --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --seeds 0 1 2

Scribbles and points are simulated from the masks (seed 0 for all). Each row is train-scribble as the packaged pipeline
voc-mini/scribbles runs it, but for what the row changes; the seeds are of the training. Trained on train.txt and scored
on val.txt, without and with the image tags. With ``--choose`` it trains on four fifths of train.txt and is scored on
the other fifth instead, into another file: to choose settings on. Writes a row a choice and seed, and can be stopped
and run again, also beside itself on other rows. ``--plot FILE.svg`` draws the scores by length of the scribbles, which
needs the extra ``bench``.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from choices import split_lists, write
from common import make_parser

from pseudolabel.artefacts import read_header
from pseudolabel.data.simulate import simulate_points, simulate_scribbles
from pseudolabel.options import (
    EvaluateMasksOptions,
    PredictMasksOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    TrainScribbleOptions,
)
from pseudolabel.pipeline import find_config, read_pipeline
from pseudolabel.progress import RichProgress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.train_scribble import train_scribble

SHARES = (1.0, 0.5, 0.25)
"""Of each stroke's length."""

LOSSES: dict[str, dict[str, Any]] = {
    "full masks": {"labels": None, "regulariser": "none"},
    "partial cross entropy": {"regulariser": "none"},
    "densecrf": {"regulariser": "densecrf"},
    "normalised cut": {"regulariser": "normalised-cut"},
    "kernel cut": {"regulariser": "kernel-cut"},
    "gated crf": {"regulariser": "gated-crf"},
    "dfr": {},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "dfr, only labels make pairs": {"confidence": None},
    "dfr without its loss": {"regulariser_weight": 0.0},
    "dfr without deep features": {"sigma_embedding": None, "consistency": None},
}
SHORTER = {"half the length": "scribbles-0.5", "a quarter": "scribbles-0.25", "points": "points"}
TAUGHT_BY = ("dfr", "partial cross entropy")
LENGTHS: dict[str, dict[str, Any]] = {
    f"{name}, {what}": {**LOSSES[name], "labels": labels} for name in TAUGHT_BY for what, labels in SHORTER.items()
}
CHOICES: dict[str, dict[str, Any]] = {
    "dfr, weight 0.3": {"regulariser_weight": 0.3},
    "dfr, weight 3": {"regulariser_weight": 3.0},
    "dfr, consistency 0.3": {"consistency": 0.3},
    "dfr, sigma xy 50": {"sigma_xy": 50.0},
    "images alike": {"by_image": True, "regulariser": "none"},
}
ROWS = {**LOSSES, **ABLATIONS, **LENGTHS, **CHOICES}
COLUMNS = ("choice", "seed", "miou", "miou_tags", "images_per_second")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    parser = make_parser(__doc__, __file__, results="scribbles.csv")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/scribbles"))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=[*LOSSES, *ABLATIONS, *LENGTHS], metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--plot", type=Path, help="an .svg to draw the scores by length of the scribbles into")
    parser.add_argument("--choose", action="store_true", help="on parts of train.txt; choose --results, too")
    arguments = parser.parse_args()
    lists = split_lists(arguments.root, arguments.work) if arguments.choose else (Path("train"), Path("val"))
    simulate(arguments.root, arguments.work)
    for seed in arguments.seeds:
        for name in arguments.rows:
            if (name, str(seed)) not in {(row["choice"], row["seed"]) for row in read(arguments.results)}:
                found = one(arguments, ROWS[name], *map(str, lists), seed)
                # read again: others may have written meanwhile
                write(arguments.results, [*read(arguments.results), {"choice": name, "seed": seed, **found}], COLUMNS)
                print(name, seed, found, flush=True)
    scores = {key: by_choice(read(arguments.results), key) for key in ("miou", "miou_tags")}
    for name, values in scores["miou"].items():
        print(f"{name:40} {spread(values)}   with tags {spread(scores['miou_tags'][name])}   {len(values)} seeds")
    if arguments.plot:
        plot(scores["miou"], arguments.plot)


def simulate(root: Path, work: Path) -> None:
    """Draw what is not there yet: scribbles of every length, and points."""
    data: dict[str, Any] = {"dataset": "voc", "root": root, "split": "train", "from_": "masks"}
    for share in SHARES:
        if not (out := work / f"scribbles-{share:g}").exists():
            simulate_scribbles(SimulateScribblesOptions(out=out, length=share, **data))
    if not (out := work / "points").exists():
        simulate_points(SimulatePointsOptions(out=out, **data))


def one(arguments: Any, changes: Mapping[str, Any], train: str, held_out: str, seed: int) -> dict[str, Any]:
    """Train with these changes and score, in per cent."""
    values = dict(changes)
    labels = values.pop("labels", "scribbles-1")
    if labels is None:
        values["supervision"] = "masks"
    else:
        kind, place = ("points", "points/points.csv") if labels == "points" else ("scribbles", labels)
        values[kind] = arguments.work / place
    name = "-".join([train.rpartition("/")[2], str(labels), *(f"{key}_{value}" for key, value in changes.items())])
    checkpoint = arguments.work / f"{name}-{seed}.h5".replace("/", "_")
    if not checkpoint.exists():
        train_scribble(settings(arguments, values, train, checkpoint, seed), RichProgress())
    folder, again = checkpoint.with_suffix(""), {"overwrite": True}
    looks = {"size": 448, "scales": (1, 0.75, 1.25)}
    predict_masks(PredictMasksOptions(checkpoint=checkpoint, split=held_out, out=folder, **looks, **again))
    scores = evaluate_masks(EvaluateMasksOptions(masks=folder, boundary=None, resamples=0, **again))
    cost = read_header(checkpoint).cost
    return {
        "miou": round(100 * scores["miou"], 2),
        "miou_tags": round(100 * scores["tag_filtered"]["miou"], 2),
        "images_per_second": cost["images_per_second"],
    }


def settings(arguments: Any, changes: Mapping[str, Any], split: str, out: Path, seed: int) -> TrainScribbleOptions:
    """The pipeline's train-scribble, with these changes."""
    places_of_pipeline = {"net.weights": str(arguments.weights), "defaults.root": str(arguments.root)}
    steps = read_pipeline(find_config("voc-mini/scribbles"), places_of_pipeline).steps
    base = next(step.options for step in steps if step.stage == "train-scribble").model_dump()
    base["scribbles"] = None
    places = {"root": arguments.root, "weights": arguments.weights, "split": split, "out": out, "seed": seed}
    return TrainScribbleOptions(**{**base, **places, **changes})


def read(path: Path) -> list[dict[str, Any]]:
    """The rows so far."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def by_choice(rows: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    """The figures of each choice, one a seed."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["choice"], []).append(float(row[key]))
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):5.2f} ± {deviation(values):4.2f}"


def deviation(values: list[float]) -> float:
    """The standard deviation; of one seed none is known."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def plot(scores: dict[str, list[float]], path: Path) -> None:
    """Draw mean and deviation of the scores by length of the scribbles, and those of full masks as a line."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "scribbles", "svg.fonttype": "none", "font.size": 9})
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    if "full masks" in scores:
        axis.axhline(statistics.mean(scores["full masks"]), color="0.5", ls="--", lw=1, label="full masks")
    for name in TAUGHT_BY:
        rows = {"whole": name, **{what: f"{name}, {what}" for what in SHORTER}}
        known = {what: scores[row] for what, row in rows.items() if row in scores}
        means = [statistics.mean(values) for values in known.values()]
        axis.errorbar(list(known), means, [deviation(values) for values in known.values()], fmt="o-", ms=3, label=name)
    axis.set_xlabel("length of the scribbles")
    axis.set_ylabel("mIoU on val, per cent")
    axis.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
