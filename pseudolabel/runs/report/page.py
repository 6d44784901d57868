"""One self-contained page about runs: the function behind ``report``. It loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pseudolabel import __version__
from pseudolabel.artefacts import check_output, partial_path
from pseudolabel.artefacts.atomic import writing
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.runs.comparison import HEADLINES, compare
from pseudolabel.runs.headline_scores import HeadlineScores, find_headline_scores
from pseudolabel.runs.lineage import RunFolder, read_runs
from pseudolabel.runs.report import tables
from pseudolabel.runs.report.curves import mixture_charts, threshold_charts, training_charts
from pseudolabel.runs.report.gallery import Example, examples
from pseudolabel.runs.report.html import Html, element, joined
from pseudolabel.runs.report.parts import bar_cell, charts, notes_of, scrolled, table_of
from pseudolabel.runtime.formatting import counted, percent
from pseudolabel.runtime.progress import Progress

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
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
    comparison = compare(runs, figures)
    thresholds = tables.threshold_table(comparison)
    progress.log(f"drawing {counted(len(runs), 'run')}")
    shown, left_out = draw_pictures(runs, figures, pictures, root)
    sections = {
        "Scores": score_section(comparison),
        "Classes": class_section(comparison),
        "Cost": table_of(tables.cost_table(comparison)),
        "Thresholds": [table_of(thresholds) if thresholds else Html(), charts(threshold_charts(runs))],
        "Mixtures": charts(mixture_charts(runs)),
        "Training": charts(training_charts(runs)),
        "Pictures": picture_section(shown, left_out),
        "Lineage": [lineage_table(number, run) for number, run in enumerate(runs)],
    }
    page = page_of(", ".join(run.name for run in runs), {title: joined(part) for title, part in sections.items()})
    partial = partial_path(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(page.encode("utf-8", "replace"))  # names of files may be no UTF-8
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
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


def page_of(title: str, sections: Mapping[str, Html]) -> str:
    """The whole document; sections without content are left out."""
    kept = {name: content for name, content in sections.items() if content}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"pseudolabel report: {title}"),
        element("style", Html((files("pseudolabel.runs.report") / "page.css").read_text(encoding="utf-8"))),
    )
    links = [element("li", element("a", name, href=f"#{name.lower()}")) for name in kept]
    body = element(
        "body",
        element(
            "header",
            element("h1", title),
            element("p", f"Written by pseudolabel {__version__}. Shares are in per cent.", class_="dim"),
            element("nav", element("ul", links), aria_label="Contents"),
        ),
        element(
            "main",
            [element("section", element("h2", name), content, id=name.lower()) for name, content in kept.items()],
        ),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def score_section(comparison: Mapping[str, Any]) -> Html:
    """What the runs reached, and what must be known to read it."""
    scores, other = tables.score_table(comparison), tables.other_table(comparison)
    supervised = tables.supervision_table(comparison)
    each = [table_of(tables.Table(title, scores.head, [("", rows)])) for title, rows in scores.sections]
    return joined(
        element("div", each, class_="tables"),
        table_of(supervised) if supervised else None,
        notes_of("Not measured alike", tables.difference_notes(comparison)),
        notes_of("Missing", tables.gap_notes(comparison)),
        notes_of("Pixel masks were used before evaluation (oracle)", tables.oracle_notes(comparison)),
        table_of(other) if other else None,
    )


def class_section(comparison: Mapping[str, Any]) -> Html:
    """IoU by class as bars: a table a figure, a column a run."""
    parts = []
    for key, title in HEADLINES.items():
        columns = {run["name"]: run["headline_scores"][key]["iou"] for run in comparison["runs"]}
        names = dict.fromkeys(name for column in columns.values() for name in column or ())
        if not names:
            continue
        head = element("tr", [element("th", text, scope="col") for text in ("class", *columns)])
        rows = [
            element(
                "tr",
                element("th", name, scope="row"),
                [bar_cell((column or {}).get(name), style) for style, column in enumerate(columns.values())],
            )
            for name in names
        ]
        caption = f"IoU of each class, %: {title}"
        parts.append(scrolled(caption, element("thead", head), element("tbody", rows)))
    return element("div", parts, class_="tables") if parts else Html()


def picture_section(shown: Mapping[str, Sequence[Example]], left_out: Mapping[str, str]) -> Html:
    """The pictured figures, image by image."""
    parts: list[Html] = []
    for key, made in shown.items():
        parts.append(element("h3", HEADLINES[key]))
        parts += [example_part(example) for example in made]
    return joined(parts, [element("p", reason, class_="dim") for reason in left_out.values()])


def example_part(example: Example) -> Html:
    """One image: photograph and ground truth, then what each run has made of it."""
    scores = "; ".join(f"{name} mIoU {percent(score)}" for name, score in example.scores.items())
    legend = [
        element("li", element("span", style=f"background:{colour}", aria_hidden="true"), " ", name)
        for colour, name in example.legend
    ]
    pictures = [(panel.title, panel) for panel in example.common]
    for name, panels in example.runs.items():
        pictures += [(f"{panel.title}, {name}", panel) for panel in panels]
    figures = [
        element("figure", element("img", src=panel.uri, alt=panel.alt), element("figcaption", title))
        for title, panel in pictures
    ]
    return element(
        "article",
        element("p", element("strong", example.rank), f": {example.name}. {scores}"),
        element("div", figures, class_="panels"),
        element("ul", legend, class_="legend"),
    )


def lineage_table(number: int, run: RunFolder) -> Html:
    """Every artefact of a run and what it was made from, with links between them."""
    anchors = {node: f"artefact-{number}-{place}" for place, node in enumerate(run.nodes)}
    rows = []
    for node, anchor in anchors.items():
        sources = []
        for item in node.header.inputs:
            parent = run.parent(node, item)
            link = element("a", parent.name, href=f"#{anchors[parent]}") if parent else run.fate(node, item)
            sources.append(element("div", link))
        cells = [joined(sources), node.header.stage, node.kind, node.header.created, node.header.digest[:12]]
        rows.append(
            element("tr", element("th", node.name, scope="row"), [element("td", cell) for cell in cells], id=anchor)
        )
    head = [element("th", text, scope="col") for text in ("artefact", "from", "made by", "kind", "at", "digest")]
    return scrolled(f"artefacts of {run.name}", element("thead", element("tr", head)), element("tbody", rows))
