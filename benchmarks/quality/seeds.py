"""Whole routes on voc-mini over several seeds: a row a run of voc_mini.py, and of each route mean and deviation.

    python -m benchmarks.quality.voc_mini --config voc-mini/cosa --root ../shared/voc-mini \\
        --set defaults.seed=1 --set cosa.weights=../shared/weights/vit_tiny_patch16_224.safetensors \\
        --work work/cosa-1 --results work/cosa-1.json
    python -m benchmarks.quality.seeds benchmarks/results/voc_mini_cosa.json work/cosa-1.json

Reads the figures that voc_mini.py has written, adds them to the CSV or replaces the same route's and seed's there, and
prints what all of the CSV's runs have reached. ``processor_minutes`` are those of all stages, whatever else a machine
was doing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser
from benchmarks.quality.trials import read_rows, spread, write_rows

SCORES: dict[str, tuple[str, str | None]] = {
    "maps": ("plain-scores", None),
    "pseudo_labels": ("pseudo-scores", None),
    "refined": ("masks-scores", None),
    "val": ("val-scores", None),
    "val_tags": ("val-scores", "tag_filtered"),
}
"""Of each column: the scores of the pipeline, and which of them."""

COLUMNS = (
    "route", "seed", "tag_map", *SCORES, "val_boundary", "val_maps", "processor_minutes", "minutes", "commit"
)  # fmt: skip
"""Scores in per cent: ``maps`` at the mixture's threshold, ``val_maps`` at their best one, an oracle."""


def main() -> None:
    """Add the runs to the CSV and print every route."""
    parser = make_parser(__doc__, __file__, results="seeds.csv")
    parser.add_argument("figures", nargs="*", type=Path, help="JSON documents of voc_mini.py")
    arguments = parser.parse_args()
    rows = {(row["route"], int(row["seed"])): row for row in read_rows(arguments.results)}
    rows |= {(row["route"], row["seed"]): row for row in map(row_of, arguments.figures)}
    write_rows(arguments.results, [rows[key] for key in sorted(rows)], COLUMNS)
    for route in sorted({route for route, _ in rows}):
        found = [row for key, row in sorted(rows.items()) if key[0] == route]
        print(f"{route}, seeds {', '.join(str(row['seed']) for row in found)}")
        for name in COLUMNS[2:-1]:
            values = [float(row[name]) for row in found if row[name] not in (None, "")]
            if values:
                print(f"  {name:17}  {spread(values)}")


def row_of(path: Path) -> dict[str, Any]:
    """The row of one run."""
    figures = json.loads(path.read_text())
    scores, stages = figures["scores"], figures["stages"]
    seed = re.search(r"defaults\.seed=(\d+)", figures["command"])  # the packaged pipelines' own is 0
    curve = next(stage["facts"] for stage in stages if stage["key"] == "val-curve")
    return {
        "route": figures["pipeline"].removeprefix("voc-mini "),
        "seed": int(seed[1]) if seed else 0,
        "tag_map": percent(stages[0]["facts"]["tag_map"]),
        **{
            column: percent((scores[name][part] if part else scores[name])["miou"]) if name in scores else None
            for column, (name, part) in SCORES.items()
        },
        "val_boundary": percent(scores["val-scores"]["boundary_iou"]),
        "val_maps": percent(curve["miou"]),
        "processor_minutes": round(sum(stage["cost"]["cpu_seconds"] for stage in stages) / 60, 1),
        "minutes": round(figures["wall_seconds"] / 60, 1),
        "commit": figures["conditions"]["commit"],
    }


def percent(share: float) -> float:
    """A share in per cent."""
    return round(100 * share, 2)


if __name__ == "__main__":
    main()
