"""One self-contained page about runs: the function behind ``report``. It loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pseudolabel import __version__
from pseudolabel.artefacts import check_output
from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.runs.comparison import HEADLINES, compare
from pseudolabel.runs.headline_scores import HeadlineScores, find_headline_scores
from pseudolabel.runs.lineage import RunFolder, read_runs
from pseudolabel.runs.report import tables
from pseudolabel.runs.report.charts import COLOURS
from pseudolabel.runs.report.curves import mixture_charts, threshold_charts, training_charts
from pseudolabel.runs.report.gallery import Example, examples
from pseudolabel.runtime.formatting import counted, percent
from pseudolabel.runtime.progress import Progress

_PICTURED = ("pseudo_labels", "segmenter")


def write_report(
    folders: Sequence[Path],
    out: Path,
    progress: Progress = Progress(),  # noqa: B008 - has no state
    *,
    pictures: int = 2,
    root: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one HTML page about runs.

    Args:
        folders: One a run.
        out: The page, ``.html``.
        progress: Where to report.
        pictures: How many of the best, median and worst images to show of each figure.
        root: Where the data set lies now, if it has moved.
        overwrite: Replace an existing page.

    Returns:
        ``out``, ``bytes``, ``runs`` (their names), ``pictures`` (how many images are shown), ``left_out`` (why some are
        not).

    Raises:
        InputError: A folder is no run, or ``out`` cannot be the page's name.
    """
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: wanted a name that ends in .html")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; wanted the name of a file")
    runs = read_runs(folders)
    check_output(out, overwrite=overwrite, ending=out.suffix)
    figures = [find_headline_scores(run) for run in runs]
    progress.log(f"drawing {counted(len(runs), 'run')}")
    shown, left_out = draw_pictures(runs, figures, pictures, root)
    page = page_of(
        runs,
        compare(runs, figures),
        pictured=[(HEADLINES[key], made) for key, made in shown.items()],
        left_out=left_out.values(),
    )
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as file:
            file.write(page.encode("utf-8", "replace"))  # names of files may be no UTF-8
    return {
        "out": str(out),
        "bytes": out.stat().st_size,
        "runs": [run.name for run in runs],
        "pictures": sum(map(len, shown.values())),
        "left_out": list(left_out.values()),
    }


def draw_pictures(
    runs: Sequence[RunFolder], figures: Sequence[HeadlineScores], count: int, root: Path | None
) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """The images of each pictured figure; or why there are none, by figure."""
    shown, left_out = {}, {}
    for key in _PICTURED if count else ():
        try:
            shown[key] = examples(runs, figures, key, count, root)
        except PseudolabelError as error:  # a page without these pictures is still worth having
            left_out[key] = f"no pictures of {HEADLINES[key]}: {error}"
    return shown, left_out


def page_of(runs: Sequence[RunFolder], comparison: Mapping[str, Any], **pictures: Any) -> str:
    """The whole document, from its template, which escapes whatever is not markup.

    Args:
        runs: What the page is about.
        comparison: Of these runs.
        **pictures: ``pictured`` and ``left_out``, as the template shows them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pseudolabel.runs.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    scores = tables.score_table(comparison)
    page = environment.get_template("page.html.jinja").render(
        title=", ".join(run.name for run in runs),
        version=__version__,
        runs=runs,
        colours=COLOURS,
        score_tables=[tables.Table(title, scores.head, [("", rows)]) for title, rows in scores.sections],
        supervision_table=tables.supervision_table(comparison),
        difference_notes=tables.difference_notes(comparison),
        gap_notes=tables.gap_notes(comparison),
        oracle_notes=tables.oracle_notes(comparison),
        other_table=tables.other_table(comparison),
        class_tables=list(class_tables(comparison)),
        cost_table=tables.cost_table(comparison),
        threshold_table=tables.threshold_table(comparison),
        threshold_charts=threshold_charts(runs),
        mixture_charts=mixture_charts(runs),
        training_charts=training_charts(runs),
        **pictures,
    )
    return page.lstrip()  # the lines of what the template only defines are empty


def class_tables(
    comparison: Mapping[str, Any],
) -> Iterator[tuple[str, Sequence[str], Mapping[str, Mapping[str, float]]]]:
    """IoU by class, a table a figure: its title, the classes, and by run the IoU of each class that has one."""
    for key, title in HEADLINES.items():
        columns = {run["name"]: run["headline_scores"][key]["iou"] or {} for run in comparison["runs"]}
        names = list(dict.fromkeys(name for column in columns.values() for name in column))
        if names:
            yield title, names, columns
