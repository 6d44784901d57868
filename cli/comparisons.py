"""The commands that set runs side by side: ``compare`` and ``report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .failures import traced
from .flags import Json, Quiet, Trace

if TYPE_CHECKING:
    from pseudolabel.runs.report.tables import Table

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Folder of a run, or of artefacts made by single commands; may be repeated."),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="HTML file to write.")]
Pictures = Annotated[
    int,
    typer.Option(
        "--pictures", metavar="INTEGER", min=0, help="Number of best, median and worst images to show per run."
    ),
]
Root = Annotated[
    Path | None, typer.Option("--root", metavar="PATH", help="Folder of the data set, if it has moved since the runs.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def compare(runs: Runs, *, as_json: Json = False, trace: Trace = False) -> None:
    """Set runs side by side: scores, cost, thresholds, and in what they were not measured alike."""
    with traced(trace):
        from pseudolabel.runs.comparison import compare_runs

        from .render import print_json

        found = compare_runs(runs)
        print_json(found) if as_json else show_comparison(found)


def report(
    runs: Runs,
    *,
    out: Out = Path("report.html"),
    pictures: Pictures = 2,
    root: Root = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    trace: Trace = False,
) -> None:
    """Write one HTML page about runs: tables, curves, mixtures, pictures, lineage; it loads nothing from anywhere."""
    with traced(trace):
        from pseudolabel.runs.report.page import write_report
        from pseudolabel.runtime.progress import RichProgress

        from .render import show_result

        progress = RichProgress(quiet=quiet)
        result = write_report(runs, out, progress, pictures=pictures, root=root, overwrite=overwrite)
        show_result("report", result, as_json=as_json)


def show_comparison(comparison: Mapping[str, Any]) -> None:
    """Print a comparison's tables, and below each what must be known to read it."""
    from rich.text import Text

    from pseudolabel.runs.report import tables

    from .tables import console

    output = console()
    for scores in (tables.score_table(comparison), tables.supervision_table(comparison)):
        if scores is not None:
            output.print(_drawn(scores))
    for title, notes in (
        ("not measured alike:", tables.difference_notes(comparison)),
        ("missing:", tables.gap_notes(comparison)),
        ("pixel masks were used before evaluation (oracle):", tables.oracle_notes(comparison)),
    ):
        if notes:
            output.print(Text(title, style="bold"))
        for note in notes:
            output.print(Text(f"  {note}"), soft_wrap=True)
    for table in (tables.other_table(comparison), tables.threshold_table(comparison), tables.cost_table(comparison)):
        if table is not None:
            output.print(_drawn(table))


def _drawn(table: Table) -> Any:
    from rich.markup import escape
    from rich.text import Text

    from .tables import make_table

    head = [escape(name) for name in table.head]  # names of runs
    drawn = make_table(head[: table.words], head[table.words :], title=table.title)
    for heading, rows in table.sections:
        drawn.add_row(Text(heading, style="bold"))
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        drawn.add_section()
    return drawn
