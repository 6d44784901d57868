"""The whole route on voc-mini, from nothing: what every stage cost, and every score with what it depends on.

    python -m benchmarks.quality.voc_mini --root ../shared/voc-mini \\
        --set cam.weights=../shared/weights/vit_tiny_patch16_224.safetensors

Runs a packaged pipeline as ``pseudolabel run`` does, each stage in a process of its own, into a work folder that must
be new, so that no stage is taken over from an earlier run. All that is reported is measured here or read from the
headers of the artefacts: nothing is added by hand. val.txt serves only to score; the sweep on it is marked as the
oracle that it is.

The target is less than 30 minutes for the multi-stage route and less than 40 for each other, on two cores with nothing
else running.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.artefacts import read_header
from pseudolabel.options.settings import parse_assignments
from pseudolabel.runs.pipeline import Pipeline, Step, find_config, read_pipeline
from pseudolabel.runs.runner import run_pipeline
from pseudolabel.runtime.progress import RichProgress


def main() -> None:
    """Run the pipeline from nothing, and report."""
    arguments = parse()
    require_empty(arguments.work)
    pipeline = read_config(arguments)
    found = conditions()
    result = run_pipeline(pipeline, RichProgress())
    figures = {
        "pipeline": result["name"],
        **{name: result[name] for name in ("wall_seconds", "stage_seconds", "bytes")},
        "stages": [describe(step, row) for step, row in zip(pipeline.steps, result["stages"], strict=True)],
        "scores": result["scores"],
    }
    minutes, limit = result["wall_seconds"] / 60, 30 if pipeline.name == "voc-mini multi-stage" else 40
    name = "minutes from nothing to the last score"
    report(__file__, arguments, found, figures, [target(name, minutes, f"<= {limit}")])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__, results="voc_mini_multi_stage.json")
    parser.add_argument("--root", type=Path, required=True, help="voc-mini's folder")
    parser.add_argument("--config", default="voc-mini/multi-stage", help="pipeline (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of run; repeatable")
    parser.add_argument(
        "--work", type=Path, default=Path("work/benchmark-voc-mini"), help="new folder (default: %(default)s)"
    )
    return parser.parse_args()


def read_config(arguments: argparse.Namespace) -> Pipeline:
    """The pipeline that the arguments name, on their data set and into their folder."""
    assignments = parse_assignments([f"defaults.root={arguments.root}", *arguments.set])
    return read_pipeline(find_config(arguments.config), assignments, arguments.work)


def require_empty(work: Path) -> None:
    """Refuse a folder that holds anything: a stage that is fresh, or gone on with, would not be measured."""
    if work.exists() and (not work.is_dir() or any(work.iterdir())):
        raise SystemExit(f"{work} is not an empty folder; pass another --work, or remove it")


def describe(step: Step, row: dict[str, Any]) -> dict[str, Any]:
    """One stage: what it cost, where it computed, and what its artefact knows; scores stand elsewhere.

    Args:
        step: Of the pipeline.
        row: Of ``run_pipeline``'s result.
    """
    header = read_header(step.options.artefact)
    facts = {} if step.stage == "evaluate-masks" else dict(header.facts)
    held_out = facts.pop("held_out", None)  # a list of ids
    return {
        "key": step.key,
        "stage": step.stage,
        "state": row["state"],
        "bytes": row["bytes"],
        "cost": dict(header.cost),
        "environment": {name: header.environment.get(name) for name in ("device", "dtype", "threads")},
        "protocol": dict(header.protocol),
        "oracle": list(header.oracle),
        **({"facts": facts} if facts else {}),
        **({} if held_out is None else {"held_out": len(held_out)}),
        "digest": header.digest,
    }


if __name__ == "__main__":
    main()
