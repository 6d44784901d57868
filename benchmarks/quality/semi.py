"""What few masks and many photographs make on voc-mini: train-semi's methods, their parts, and tags on the rest.

    python -m benchmarks.quality.semi --root ../shared/voc-mini \\
        --weights ../shared/weights/vit_tiny_patch16_224.safetensors --seeds 0 1 2

The first 25, 50 or 100 images of a list in ``semi_lists`` have masks; a list is ``data split --masks 100`` of train.txt
with its number as the seed, and training seed S uses list S modulo 3. The other images of train.txt have nothing, or,
in rows with tags, their tags. All rows take the same steps on the same views of the masks. Scored on val.txt, without
and with the image tags. With ``--choose`` it trains on four fifths of train.txt, with lists that are drawn there, and
is scored on the other fifth, into another file: to choose settings on. Writes a row a choice and seed, and can be
stopped and run again. ``--plot FILE.svg`` draws the scores by number of masks. With all 500 masks, the row "full masks"
of benchmarks/quality/scribbles.py is the bound.

The target is less than 40 minutes a row on two cores with nothing else running.
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
from pseudolabel.data.balanced_lists import draw_list
from pseudolabel.options import DataSplitOptions, TrainSemiOptions
from pseudolabel.runtime.progress import RichProgress
from pseudolabel.stages.train_semi import train_semi

LISTS = Path(__file__).with_name("semi_lists")
COUNTS = (25, 50, 100)
LONGEST = max(COUNTS)
TAGS: dict[str, Any] = {"weak_labels": True, "exclusion": 0.1, "presence": 0.1}

METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"method": "supervised"},
    "mean teacher": {"method": "mean-teacher"},
    "unimatch": {"method": "unimatch"},
    "ccvc": {"method": "ccvc"},
}
WITH_TAGS: dict[str, dict[str, Any]] = {
    f"{name} with tags": {**METHODS[name], **TAGS} for name in ("supervised", "mean teacher", "unimatch", "ccvc")
}
PARTS: dict[str, dict[str, Any]] = {
    "mean teacher, no cutmix": {"method": "mean-teacher", "cutmix": 0.0},
    "unimatch, no dropped channels": {"method": "unimatch", "perturbation": None},
    "unimatch, no strong views": {"method": "unimatch", "strong_views": 0},
    "unimatch, no cutmix": {"method": "unimatch", "cutmix": 0.0},
    "unimatch, tags restrict alone": {"method": "unimatch", "weak_labels": True},
    "unimatch, tags without restricting": {"method": "unimatch", **TAGS, "restrict": False},
    "ccvc, no discrepancy": {"method": "ccvc", "discrepancy": None},
    "ccvc, conflicts weigh 1": {"method": "ccvc", "conflict_weight": 1.0},
    "ccvc, no strong views": {"method": "ccvc", "strong_views": 0},
}
"""Of 50 masks; the first ones are each method without a part."""

ROWS: dict[str, tuple[int, dict[str, Any]]] = {
    **{f"{count} masks, {name}": (count, row) for count in COUNTS for name, row in {**METHODS, **WITH_TAGS}.items()},
    **{f"50 masks, {name}": (50, row) for name, row in PARTS.items()},
}
COLUMNS = ("choice", "seed", "miou", "miou_tags", "minutes")


def main() -> None:
    """Train and score every row that the CSV does not hold yet, and write it after each one."""
    parser = rows_parser(__doc__, __file__, ROWS, default=ROWS)
    parser.add_argument("--steps", type=int, default=1200, help="of each training (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="an .svg to draw the scores by number of masks into")
    parser.add_argument("--choose", action="store_true", help="on parts of train.txt; choose --results, too")
    arguments = parser.parse_args()
    run_rows(arguments, lambda name, seed: one(arguments, name, seed), COLUMNS)
    rows = read_rows(arguments.results)
    scores = {key: by_choice(rows, key) for key in ("miou", "miou_tags", "minutes")}
    for name, values in scores["miou"].items():
        others = f"with tags {spread(scores['miou_tags'][name])}   {statistics.mean(scores['minutes'][name]):5.1f} min"
        print(f"{name:45} {spread(values)}   {others}   {len(values)} seeds")
    if arguments.plot:
        plot(scores["miou"], arguments.plot)


def one(arguments: Any, row: str, seed: int) -> dict[str, Any]:
    """Train with a row's changes and score, in per cent."""
    count, changes = ROWS[row]
    train, held_out = split_lists(arguments.root, arguments.work) if arguments.choose else (Path("train"), Path("val"))
    name = f"{train.stem}-{row}-{seed}".replace(",", "").replace(" ", "_")
    checkpoint = arguments.work / f"{name}.h5"
    if not checkpoint.exists():
        base = packaged_settings("voc-mini/scribbles", "net", arguments)
        kept = ("dataset", "root", "backbone", "weights", "crop", "batch_size", "learning_rate")
        settings = {key: base[key] for key in kept} | {"weak_labels": False, "steps": arguments.steps}
        settings |= {"split": str(train), "seed": seed, "mask_list": listed(arguments, str(train), count, seed)}
        train_semi(TrainSemiOptions(**{**settings, **changes, "out": checkpoint}), RichProgress())
    minutes = round(read_header(checkpoint).cost["wall_seconds"] / 60, 1)
    return {**score_network(checkpoint, str(held_out)), "minutes": minutes}


def listed(arguments: Any, train: str, count: int, seed: int) -> Path:
    """The list of the images with masks: the beginning of one that is committed, or with ``--choose`` is drawn."""
    number = seed % 3
    whole = LISTS / f"{number}.txt"
    if arguments.choose:
        whole = arguments.work / f"drawn-{number}.txt"
        about = {"dataset": "voc", "root": arguments.root, "split": train}
        draw_list(DataSplitOptions(**about, masks=LONGEST, seed=number, out=whole))
    part: Path = arguments.work / f"{whole.stem}-{count}.txt"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text("".join(f"{name}\n" for name in whole.read_text().split()[:count]))
    return part


def plot(scores: dict[str, list[float]], path: Path) -> None:
    """Draw mean and deviation of the scores by number of masks, a line a method."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "semi", "svg.fonttype": "none", "font.size": 9})
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for number, name in enumerate((*METHODS, *WITH_TAGS)):
        known = {count: scores[row] for count in COUNTS if (row := f"{count} masks, {name}") in scores}
        if known:
            means = [statistics.mean(values) for values in known.values()]
            line, colour = "o--" if name in WITH_TAGS else "o-", f"C{number % len(METHODS)}"
            spreads = [deviation(values) for values in known.values()]
            axis.errorbar(list(known), means, spreads, fmt=line, color=colour, ms=3, label=name)
    axis.set_xlabel("images with masks, of 500")
    axis.set_ylabel("mIoU on val, per cent")
    axis.set_xticks(COUNTS)
    axis.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
