"""The command line: one command a stage, generated from ``options.STAGES``, and those that look after whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pseudolabel import __version__
from pseudolabel.options import STAGES, build_options, check_names
from pseudolabel.runtime.progress import RichProgress, Silence

from . import comparisons, data, runs
from .failures import exit_code, speaks_for_all, traced
from .flags import sign
from .help import PlainCommand, PlainGroup

EXAMPLES = {
    "train-cam": "pseudolabel train-cam --dataset voc --root VOCdevkit/VOC2012 --out work/cam.h5",
    "train-cosa": "pseudolabel train-cosa --dataset voc --root VOCdevkit/VOC2012 --out work/cosa.h5",
    "train-scribble": "pseudolabel train-scribble --root VOCdevkit/VOC2012 --scribbles strokes --out work/scribble.h5",
    "make-cams": "pseudolabel make-cams work/cam.h5 --split train --out work/cams.h5",
    "import-cams": "pseudolabel import-cams irn/cam --dataset voc --root VOCdevkit/VOC2012 --out work/cams.h5",
    "search-threshold": "pseudolabel search-threshold work/cams.h5 --out work/threshold.h5",
    "search-crf": "pseudolabel search-crf work/cams.h5 --threshold work/threshold.h5 --out work/crf.h5",
    "refine-crf": "pseudolabel refine-crf work/cams.h5 --threshold work/threshold.h5 --out work/soft.h5",
    "export-masks": "pseudolabel export-masks work/soft.h5 --overlays 20 --out work/masks",
    "train-segmenter": "pseudolabel train-segmenter work/masks --epochs 20 --out work/seg.h5",
    "predict-masks": "pseudolabel predict-masks work/seg.h5 --split val --out work/val",
    "evaluate-masks": "pseudolabel evaluate-masks work/val --json",
    "run": "pseudolabel run demo/multi-stage --out work/demo --dry-run",
    "compare": "pseudolabel compare work/multi-stage work/single-stage",
    "report": "pseudolabel report work/multi-stage work/single-stage --out report.html",
    "inspect": "pseudolabel inspect work/soft.h5 --lineage",
    "demo": "pseudolabel demo --supervision scribbles --out work/demo",
}
"""One runnable line a command, which its help ends with."""

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Weak labels in, pixel masks out, and honest scores.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=PlainGroup,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        print(f"pseudolabel {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _root(*, version: Version = False) -> None:
    pass


def _stage_command(stage: str) -> Callable[..., None]:
    """A function that runs one stage with the settings of a command line: defaults < --config < --set < flags."""

    def command(config: Path | None, assignments: list[str] | None, **words: Any) -> None:
        as_json, quiet, trace = (words.pop(name) for name in ("as_json", "quiet", "trace"))
        with traced(trace):
            options = build_options(stage, _settings(stage, config, assignments or [], words))
            from pseudolabel.runs.runner import run_stage

            from .render import show_result

            if not speaks_for_all():
                run_stage(stage, options, Silence())
                return
            show_result(stage, run_stage(stage, options, RichProgress(quiet=quiet)), as_json=as_json)

    return sign(command, STAGES[stage], STAGES[stage].__doc__ or "")


def _settings(stage: str, config: Path | None, assignments: list[str], words: dict[str, Any]) -> dict[str, Any]:
    flags = {name: value for name, value in words.items() if value is not None}
    if config is None and not assignments:
        return flags
    from pseudolabel.options.settings import parse_assignments, read_yaml

    settings = check_names(stage, read_yaml(config), where=str(config)) if config else {}
    return settings | check_names(stage, parse_assignments(assignments), where="--set") | flags


for _stage in STAGES:
    app.command(_stage, cls=PlainCommand, epilog=f"Example: {EXAMPLES[_stage]}", rich_help_panel="Stages")(
        _stage_command(_stage)
    )
_RUNS: dict[str, Callable[..., None]] = {
    "run": runs.run,
    "compare": comparisons.compare,
    "report": comparisons.report,
    "inspect": runs.inspect,
    "demo": runs.demo,
}
for _name, _function in _RUNS.items():
    app.command(_name, cls=PlainCommand, epilog=f"Example: {EXAMPLES[_name]}", rich_help_panel="Runs")(_function)
app.add_typer(data.app, name="data", rich_help_panel="Runs")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 wrong input or usage, 130 interrupted."""
    return exit_code(typer.main.get_command(app), arguments)
