"""``report``: one page that holds everything, escapes every name, and loads nothing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import read_header
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.cli.app import main
from pseudolabel.errors import InputError
from pseudolabel.labels.mixture import Mixture
from pseudolabel.runs.report.charts import Line, Mark, line_chart, mixture_chart
from pseudolabel.runs.report.gallery import chosen_images
from pseudolabel.runs.report.page import write_report
from tests.helpers import kinds
from tests.helpers.charts import edges_of, lines_of, numbers_of, points_of
from tests.helpers.runs import multi_stage, write_data

ODD = ("background", "<b>&\"cat'", "</script><img src=x>")
SECTIONS = ["scores", "classes", "cost", "thresholds", "mixtures", "training", "pictures", "lineage"]
_EMPTY = {"meta", "img", "br", "path", "line", "circle", "rect"}


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, its text, and whether every element was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _EMPTY
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def both(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report about both runs."""
    out = tmp_path_factory.mktemp("report") / "both.html"
    found = write_report([made / "multi", made / "single"], out, pictures=1)
    assert found == {
        "out": str(out),
        "bytes": out.stat().st_size,
        "runs": ["multi", "single"],
        "pictures": 3 + 3,
        "left_out": [],
    }
    return out


@pytest.fixture(scope="module")
def page(both: Path) -> Page:
    """What is in it."""
    return Page(both.read_text(encoding="utf-8"))


def test_every_section_is_there_and_linked(both: Path, page: Page) -> None:
    assert both.read_text(encoding="utf-8").startswith("<!doctype html>\n")
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    links = [attributes["href"] for attributes in page.all("a")]
    assert links[: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links if link} <= set(ids)


def test_nothing_is_loaded_from_anywhere(both: Path, page: Page) -> None:
    text = both.read_text(encoding="utf-8")
    assert not re.search(
        r"""(?i)https?:|["'(]//|@import|url\(|<script|<link|<iframe|<object|<use|javascript:|\son\w+=""", text
    )
    for _, attributes in page.found:
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
        assert attributes.keys().isdisjoint({"srcset", "data", "action", "xlink:href", "poster", "background"})
    policy = next(attributes for attributes in page.all("meta") if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_page_can_be_read_by_everyone(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in page.text
    for attributes in page.all("img"):
        assert re.match(
            r"(photograph|ground truth of|CAM of|pseudo mask of|prediction of) [tv]\d", str(attributes["alt"])
        )
    charts = [attributes for attributes in page.all("svg") if attributes.get("aria-hidden") != "true"]
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in charts)
    assert len(charts) == len([found for found in page.all("figure") if found.get("class") == "chart"]) > 0
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in page.all("th"))
    regions = [attributes for attributes in page.all("div") if attributes.get("role") == "region"]
    assert len(regions) == len(page.all("table"))
    assert all(attributes["aria-label"] and attributes["tabindex"] == "0" for attributes in regions)


def test_figures_are_the_artefacts(made: Path, page: Page) -> None:
    for name in ("multi/eight.h5", "multi/five.h5", "multi/eleven.h5", "single/pseudo/scores.h5"):
        assert f"{100 * read_header(made / name).facts['miou']:.1f}" in page.text
    bars = [str(attributes.get("style")) for attributes in page.all("span") if "width" in str(attributes.get("style"))]
    share = read_header(made / "multi/eight.h5").facts["iou"]["cat"]
    assert any(bar.startswith(f"width:{100 * share:.1f}%;") for bar in bars)
    assert len(bars) == 3 * 2 * 4  # classes, runs, figures
    assert [bar.partition(";")[2] for bar in bars[:2]] == ["background:var(--s0)", "background:var(--s1)"]
    assert "scales of pseudo labels, CAMs: multi = 1, 0.5; single = 1" in page.text
    assert "single: threshold swept against the masks of split train: swept.h5" in page.text


def test_pictures_show_what_there_is_of_each_run(page: Page) -> None:
    alts = [str(attributes["alt"]) for attributes in page.all("img")]
    titles = re.findall(r"(?:photograph|ground truth|(?:CAM|pseudo mask|prediction), (?:multi|single))", page.text)
    of_training = [
        "photograph",
        "ground truth",
        "CAM, multi",
        "pseudo mask, multi",
        "CAM, single",
        "pseudo mask, single",
    ]
    of_others = ["photograph", "ground truth", "prediction, multi", "prediction, single"]
    assert titles == of_training * 3 + of_others * 3
    assert len(alts) == len(titles)
    truth = next(alt for alt in alts if alt.startswith("ground truth of v"))
    assert re.fullmatch(r"ground truth of v\d: background 75 %, (cat|dog) 25 %", truth)
    uri = str(page.all("img")[0]["src"]).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 24))


def test_charts_of_trainings_thresholds_and_mixtures(made: Path, page: Page) -> None:
    titles = [str(attributes["aria-label"]) for attributes in page.all("svg") if attributes.get("aria-label")]
    for start in (
        "train-cam: loss: loss over step. multi: one.h5: from ",
        "train-cam: score: score over epoch. multi: one.h5: from 0.25 to 0.75",
        "train-segmenter: loss",
        "train-cosa: loss: loss over step. single: network.h5",
        "single: swept.h5, masks of split train (oracle): share over threshold. miou: from ",
        "multi: three.h5, values of 4 maps of split train, no masks: Histogram of ",
    ):
        assert any(title.startswith(start) for title in titles), start
    facts = read_header(made / "multi/three.h5").facts
    assert f"value {facts['value']:.3f}" in next(title for title in titles if "Histogram" in title)


def test_the_lineage_links_every_artefact_to_what_it_was_made_from(made: Path, page: Page) -> None:
    artefacts = [attributes["id"] for attributes in page.all("tr") if attributes.get("id")]
    assert len(artefacts) == 12 + 11
    links = [attributes["href"] for attributes in page.all("a")][len(SECTIONS) :]
    parents = sum(
        item.kind not in ("dataset", "weights")
        for name in ("multi", "single")
        for path in (made / name).rglob("*.h5")
        for item in read_header(path).inputs
    )
    assert len(links) == parents
    assert f"dataset {made / 'data'}" in page.text


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    splits = {"train": ["<i>&\"t'1", "t2"], "val": ["</style><b>v1", "v2"]}
    splits["val"][0] = "<!--v1"  # a slash would be a folder
    root = write_data(tmp_path / "data", classes=ODD, splits=splits)
    run = multi_stage(tmp_path / "<h1>&run", root)
    write_report([run], tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("h1")) == 1
    assert page.all("b") == page.all("i") == page.all("script") == []
    assert all(str(attributes["src"]).startswith("data:") for attributes in page.all("img"))
    for words in (*ODD, *splits["train"], *splits["val"], "<h1>&run"):
        assert words in page.text, words
    assert any(ODD[1] in str(attributes["alt"]) for attributes in page.all("img"))


def test_what_cannot_be_drawn_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(made / "multi", tmp_path / "run"))
    with kinds.edited(run / "eight.h5") as file:
        del file["images"]  # as before scores held those of single images
    (run / "eleven.h5").unlink()
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 0
    assert found["left_out"] == [
        f"no pictures of pseudo labels of the training images: {run / 'eight.h5'} holds no scores of single images; "
        f"run 'pseudolabel evaluate-masks {run / 'seven' / 'masks.h5'} --out {run / 'eight.h5'} --overwrite'",
        "no pictures of final segmenter on other images, without image tags: no run has this figure",
    ]
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert all(reason in text for reason in found["left_out"])


def test_what_an_artefact_need_not_hold_is_left_out(made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made / "multi", tmp_path / "run"))
    with kinds.edited(run / "three.h5") as file:
        del file["mixture/mean"]
    with kinds.edited(run / "one.h5") as file:
        file["curves/grid"] = np.zeros((2, 2))
        file["curves/unknown"] = np.full(3, np.nan)
        file["curves/empty"] = np.zeros(0)
    found = write_report([run], tmp_path / "a.html")
    assert found["left_out"] == []
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    titles = [str(attributes["aria-label"]) for attributes in page.all("svg") if attributes.get("aria-label")]
    assert sorted(title.partition(":")[2].partition(":")[0] for title in titles) == [
        " loss",
        " loss",
        " score",
        " score",
    ]


def test_a_data_set_that_has_moved_is_found_by_root(made: Path, tmp_path: Path) -> None:
    for name in ("data", "multi"):
        shutil.copytree(made / name, tmp_path / name)
    for path in (tmp_path / "multi").rglob("*.h5"):
        with kinds.edited(path) as file:
            file.attrs["dataset"] = attribute(file, "dataset").replace(str(made), str(tmp_path / "gone"))
    found = write_report([tmp_path / "multi"], tmp_path / "a.html")
    assert found["left_out"][0].endswith(
        f"data set folder {tmp_path / 'gone/data'} does not exist; pass --root with the folder's place now"
    )
    found = write_report([tmp_path / "multi"], tmp_path / "b.html", root=tmp_path / "data")
    assert (found["left_out"], found["pictures"]) == ([], 4 + 3)


def test_the_same_runs_give_the_same_page(made: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([made / "single"], tmp_path / f"{name}.html", pictures=1)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_without_pictures(made: Path, tmp_path: Path) -> None:
    assert write_report([made / "multi"], tmp_path / "a.html", pictures=0)["pictures"] == 0
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert [attributes["id"] for attributes in page.all("section")] == [n for n in SECTIONS if n != "pictures"]


def test_errors_are_exact_and_nothing_is_replaced_unasked(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        capsys.readouterr()
        assert main(["report", *map(str, words)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    run = made / "multi"
    assert refused(run, "--out", run / "one.h5", "--overwrite") == (
        f"error: --out {run / 'one.h5'}: wanted a name that ends in .html"
    )
    (tmp_path / "x.html").mkdir()
    assert refused(run, "--out", tmp_path / "x.html") == (
        f"error: --out {tmp_path / 'x.html'} is a folder; wanted the name of a file"
    )
    (tmp_path / "y.html").write_text("mine")
    assert refused(run, "--out", tmp_path / "y.html") == (
        f"error: {tmp_path / 'y.html'} exists already; pass --overwrite to replace it, or another --out"
    )
    assert (tmp_path / "y.html").read_text() == "mine"
    assert main(["report", str(run), "--out", str(tmp_path / "y.html"), "--overwrite", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert "bytes" in shown.out
    assert shown.err == ""
    assert [path.name for path in tmp_path.glob("*.partial")] == []


# Charts


@pytest.mark.parametrize(
    ("high", "wanted"),
    [
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, [0, 0.1, 0.2, 0.3]),
        (6e-5, [0, 2e-5, 4e-5, 6e-5]),
        (123456, [0, 50000, 100000]),
    ],
)
def test_ticks_are_round_and_few(high: float, wanted: list[float]) -> None:
    chart = line_chart("t", [Line("a", np.arange(1, 721), np.linspace(0, high, 720))], x="step", y="y", whole=True)
    x, y = numbers_of(chart)
    assert x == [200, 400, 600]
    assert y == wanted


def test_ticks_of_whole_numbers() -> None:
    chart = line_chart("t", [Line("a", np.arange(1, 4), np.arange(-1, 2))], x="epoch", y="y", whole=True)
    assert numbers_of(chart) == ([1, 2, 3], [-1, -0.5, 0, 0.5, 1])


def test_lines_end_where_their_values_do() -> None:
    chart = line_chart("t", [Line("a", np.array([0.0, 1.0]), np.array([0.0, 1.0]))], x="x", y="y")
    (left, bottom), (right, top) = edges_of(chart)
    start, end = points_of(chart, "s0")
    assert start == pytest.approx((left, bottom), abs=0.1)
    assert end == pytest.approx((right, bottom + (top - bottom) / 1.04), abs=0.1)  # the axis ends 4 % above the largest


def test_lines_of_many_points_are_means_and_nan_is_left_out() -> None:
    values = np.arange(1000.0)
    values[3] = np.nan
    chart = line_chart("t", [Line("a", values, values)], x="x", y="y")
    assert 100 <= len(points_of(chart, "s0")) <= 150
    assert "nan" not in chart.drawing


def test_one_point_is_a_dot_whatever_its_style() -> None:
    chart = line_chart("t", [Line("a", np.ones(1), np.ones(1), style=1)], x="x", y="y", marks=[Mark("m", 0.5)])
    first, second = points_of(chart, "s1")
    assert first == second
    assert "stroke-width: 8; stroke-linecap: round" in chart.drawing
    assert lines_of(chart, "s1") == [""]
    assert chart.key == [("a", "s1", (8, 4)), ("m 0.5", "ink", ())]


def test_the_key_shows_lines_as_they_are_drawn() -> None:
    lines = [Line(str(style), np.arange(3.0), np.arange(3.0) + style, style) for style in range(7)]
    marks = [Mark(str(style), 1.0, style) for style in range(4)]
    chart = line_chart("t", lines, x="x", y="y", marks=marks)
    for colour in ("s0", "s1", "s2", "s3", "s4", "s5", "ink"):
        shown = [",".join(map(str, dashes)) for _, known, dashes in chart.key if known == colour]
        assert lines_of(chart, colour) == shown
    assert len({(colour, *dashes) for _, colour, dashes in chart.key}) == 6 + 3


def test_a_chart_is_drawn_alike_whatever_is_set_for_other_figures() -> None:
    def drawn() -> str:
        return line_chart("t", [Line("a", np.arange(3.0), np.arange(3.0))], x="$x$", y="a_b & c").drawing

    first = drawn()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert drawn() == first
    assert re.findall(r">([^<>]*[a-z$][^<>]*)</text>", first) == ["$x$", "a_b &amp; c"]
    assert not re.search(
        r"""\bid=|url\(|href|<defs|#[0-9a-f]{6}""", first
    )  # ids would clash in a page, colours with its theme


def test_a_constant_line_and_a_one_sided_histogram_can_be_drawn() -> None:
    assert "nan" not in line_chart("t", [Line("a", np.arange(3.0), np.zeros(3))], x="x", y="y").drawing
    counts = np.zeros(16, int)
    counts[-1] = 5
    mixture = Mixture(np.ones(2) / 2, np.array([0.2, 0.8]), np.array([0.1, 0.1]))
    chart = mixture_chart("t", np.linspace(0, 1, 17), counts, mixture, [Mark("value", 0.5)])
    assert "nan" not in chart.drawing
    assert chart.description.startswith("Histogram of 5 values")


def test_best_median_and_worst_images() -> None:
    each = {"a": {str(n): n / 10 for n in range(10)}, "b": {str(n): n / 10 for n in range(1, 11)}}
    assert chosen_images(each, 2) == {
        "9": "best", "8": "best", "6": "median", "5": "median", "2": "worst", "1": "worst"
    }  # fmt: skip
    assert chosen_images({"a": {"x": 1.0, "y": 0.5}}, 2) == {"x": "best", "y": "best"}
    assert chosen_images({"a": {"x": 1.0, "y": 0.5, "z": 0.0}}, 1) == {"x": "best", "y": "median", "z": "worst"}
    with pytest.raises(InputError, match="the runs were not scored on the same images"):
        chosen_images({"a": {"x": 1.0}, "b": {"y": 1.0}}, 1)
