"""The commands that look after whole runs: ``run``, ``inspect`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pseudolabel.options.data import DemoOptions

from .failures import traced
from .flags import Json, Quiet, Trace, command_of

if TYPE_CHECKING:
    from pseudolabel.runtime.progress import RichProgress

Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="YAML file of a pipeline, or the name of a packaged one, such as voc-mini/multi-stage."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH", help="Folder for all artefacts, instead of the one that the file names."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A single setting, such as cam.epochs=2 or defaults.root=PATH; may be repeated.",
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="STAGE", help="Run this stage only; may be repeated.")
]
Force = Annotated[bool, typer.Option("--force", help="Also run stages whose artefacts are up to date.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would run and why, but run nothing.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Artefact to describe.")]
Lineage = Annotated[bool, typer.Option("--lineage", help="Also show its inputs, back to the data set.")]
Verify = Annotated[bool, typer.Option("--verify", help="Recompute the digest; a mismatch is an error.")]


def run(
    config: Config,
    *,
    out: Out = None,
    assignments: Assignments = None,
    only: Only = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    trace: Trace = False,
) -> None:
    """Run a pipeline; stages whose artefacts are fresh are skipped."""
    with traced(trace):
        from pseudolabel.options.settings import parse_assignments
        from pseudolabel.runs.pipeline import find_config, read_pipeline
        from pseudolabel.runs.runner import plan, run_pipeline
        from pseudolabel.runtime.progress import RichProgress

        from . import summaries
        from .render import print_json

        pipeline = read_pipeline(find_config(config), parse_assignments(assignments or []), out)
        if dry_run:
            steps = plan(pipeline, force=force, only=only or [])
            print_json(steps) if as_json else summaries.show_plan(steps)
            return
        result = run_pipeline(pipeline, RichProgress(quiet=quiet), force=force, only=only or [])
        print_json(result) if as_json else summaries.show_run(result)


def inspect(
    file: File, *, lineage: Lineage = False, verify: Verify = False, as_json: Json = False, trace: Trace = False
) -> None:
    """Say what an artefact holds, how it was made, from what and at what cost."""
    with traced(trace):
        from pseudolabel.artefacts import inspection

        from . import summaries
        from .render import print_json

        described = inspection.describe_artefact(file)
        if verify:
            described["verified"] = inspection.verify(file) == described["digest"]
        if lineage:
            described["lineage"] = inspection.lineage(file)
        print_json(described) if as_json else summaries.show_artefact(described)


def _demo(options: DemoOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.runs.demo import demo as run_demo

    from . import summaries
    from .comparisons import show_comparison
    from .render import print_json
    from .tables import console

    result = run_demo(options, progress)
    if as_json:
        print_json(result)
        return
    for route in result["runs"].values():
        summaries.show_stages(route)
    show_comparison(result["comparison"])
    for picture in result["pictures"]:
        console().print(f"look at {picture}", markup=False, highlight=False, soft_wrap=True)


demo = command_of("demo", DemoOptions, _demo)
