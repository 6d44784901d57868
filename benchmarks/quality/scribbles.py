"""What each regularised loss makes of scribbles on voc-mini, beside full masks; and of shorter ones, and of points.

    python -m benchmarks.quality.scribbles --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --seeds 0 1 2

Scribbles and points are simulated from the masks (seed 0 for all). The rows with clicks, which are run if they are
asked for by name, learn from points that people clicked: ``--clicks FOLDER`` holds What's the Point's JSON, and in
another JSON points of the background. Each row is train-scribble as the packaged pipeline voc-mini/scribbles runs it,
but for what the row changes; the seeds are of the training. Trained on train.txt and scored
on val.txt, without and with the image tags. With ``--choose`` it trains on four fifths of train.txt and is scored on
the other fifth instead, into another file: to choose settings on. Writes a row a choice and seed, and can be stopped
and run again, once the scribbles are drawn also beside itself on other rows. ``--plot FILE.svg`` draws the scores by
length of the scribbles.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.quality.trials import (
    by_choice,
    deviation,
    packaged_settings,
    read_rows,
    rows_parser,
    run_rows,
    score_network,
    split_lists,
    spread,
)
from pseudolabel.artefacts import read_header
from pseudolabel.data.simulate.labels import simulate_points, simulate_scribbles
from pseudolabel.options import (
    SimulatePointsOptions,
    SimulateScribblesOptions,
    TrainScribbleOptions,
)
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.train_scribble import train_scribble

CLICKED = "voc_whats_the_point.json"
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
CLICKS: dict[str, dict[str, Any]] = {
    f"{name}, {what}": {**LOSSES[name], "labels": what}
    for name in TAUGHT_BY
    for what in ("clicks", "clicks and background")
}
CHOICES: dict[str, dict[str, Any]] = {
    "dfr, weight 0.3": {"regulariser_weight": 0.3},
    "dfr, weight 3": {"regulariser_weight": 3.0},
    "dfr, consistency 0.3": {"consistency": 0.3},
    "dfr, sigma xy 50": {"sigma_xy": 50.0},
    "images alike": {"by_image": True, "regulariser": "none"},
    **{
        f"normalised cut, weight {weight:g}": {"regulariser": "normalised-cut", "regulariser_weight": weight}
        for weight in (1, 0.1, 0.01)
    },
}
ROWS = {**LOSSES, **ABLATIONS, **LENGTHS, **CLICKS, **CHOICES}
COLUMNS = ("choice", "seed", "miou", "miou_tags", "images_per_second")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    parser = rows_parser(__doc__, __file__, ROWS, default=[*LOSSES, *ABLATIONS, *LENGTHS])
    parser.add_argument(
        "--clicks", type=Path, help="folder of voc_whats_the_point.json and of points of the background"
    )
    parser.add_argument("--plot", type=Path, help="an .svg to draw the scores by length of the scribbles into")
    parser.add_argument("--choose", action="store_true", help="on parts of train.txt; choose --results, too")
    arguments = parser.parse_args()
    if arguments.clicks is None and CLICKS.keys() & set(arguments.rows):
        parser.error("rows with clicks need --clicks")
    lists = split_lists(arguments.root, arguments.work) if arguments.choose else (Path("train"), Path("val"))
    simulate(arguments.root, arguments.work)
    run_rows(arguments, lambda name, seed: one(arguments, name, seed, *map(str, lists)), COLUMNS)
    scores = {key: by_choice(read_rows(arguments.results), key) for key in ("miou", "miou_tags")}
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


def one(arguments: Any, row: str, seed: int, train: str, held_out: str) -> dict[str, Any]:
    """Train with a row's changes and score, in per cent."""
    changes = dict(ROWS[row])
    labels = changes.pop("labels", "scribbles-1")
    if labels is None:
        changes["supervision"] = "masks"
    elif labels.startswith("clicks"):
        changes["points"] = arguments.clicks / (CLICKED if labels == "clicks" else "")
    else:
        kind, place = ("points", "points/points.csv") if labels == "points" else ("scribbles", labels)
        changes[kind] = arguments.work / place
    name = f"{Path(train).stem}-{row}-{seed}".replace(",", "").replace(" ", "_")
    checkpoint = arguments.work / f"{name}.h5"
    if not checkpoint.exists():
        base = {**packaged_settings("voc-mini/scribbles", "net", arguments), "scribbles": None}
        places = {"split": train, "out": checkpoint, "seed": seed}
        train_scribble(TrainScribbleOptions(**{**base, **places, **changes}), RichProgress())
    speed = read_header(checkpoint).cost["images_per_second"]
    return {**score_network(checkpoint, held_out), "images_per_second": speed}


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
