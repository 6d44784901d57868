"""The page's charts of a co-training: its curves in groups, and the last mixture of its dynamic threshold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.labels.mixture import Mixture
from pseudolabel.runs.lineage import RunFolder, read_runs
from pseudolabel.runs.report.charts import Chart, Line, Mark, line_chart, mixture_chart
from pseudolabel.runs.report.curves import mixture_charts, training_charts
from tests.helpers.charts import edges_of, numbers_of, points_of

STEPS, WARM, EPOCHS = 60, 20, 3
MIXTURE = np.array([[0.75, 0.25], [0.2, 0.75], [0.1, 0.125]])


def curves() -> dict[str, np.ndarray]:
    """As train-cosa keeps them: a value a step, NaN where nothing was measured."""
    step = np.arange(1, STEPS + 1)
    late = np.where(step > WARM, 1.0, np.nan)
    found = {
        "loss": 2 / step,
        "main": 1 / step,
        "auxiliary": 1 / step,
        "c2s": late * 3 / step,
        "s2c": late / step,
        "contrastive": late * 2,
        "regulariser": late * -1e-3,
        "rate": 6e-5 * (1 - step / 100),
        "low": late * (0.25 + step / 1000),
        "high": late * (0.5 + step / 1000),
        "labelled": np.where(step % 10 == 0, 0.75, np.nan) * late,
        "agreement": late * step / 100,
        "collapsed": late * (step == 30),
        "epoch/miou": np.array([np.nan, 0.25, 0.375]),
        "epoch/miou_tags": np.array([np.nan, 0.5, 0.625]),
        "epoch/cam_miou": np.array([0.125, 0.25, 0.25]),
    }
    return {f"curves/{name}": values.astype(np.float32) for name, values in found.items()}


def threshold(mixture: np.ndarray = MIXTURE) -> dict[str, np.ndarray]:
    edges = np.linspace(0.05, 1, 257)
    values = np.random.default_rng(0).normal(0.4, 0.2, 10_000)
    counts = np.histogram(values, edges)[0].astype(np.int64)
    limits = {"threshold/low": np.asarray(0.31), "threshold/high": np.asarray(0.56)}
    return {"threshold/counts": counts, "threshold/edges": edges, "threshold/mixture": mixture, **limits}


def run(folder: Path, *networks: Mapping[str, np.ndarray], stage: str = "train-cosa", **facts: int) -> RunFolder:
    """A folder of checkpoints."""
    folder.mkdir()
    for number, arrays in enumerate(networks):
        header = Header(
            "checkpoint", stage, {}, ("background", "cat"), created=f"2026-01-0{number + 1}T00:00:00+00:00",
            facts={"architecture": {"type": "cosa"}, **facts},
        )  # fmt: skip
        weights = {"weights/one": np.full(1, number, np.float32)}
        write_artefact(folder / f"{'abc'[number]}.h5", header, weights | arrays, CostMeter())
    return read_runs([folder])[0]


def labels(charts: list[Chart]) -> list[str]:
    return [f"{chart.title}: {chart.description}" for chart in charts]


def titles(charts: list[Chart]) -> list[str]:
    return [chart.title for chart in charts]


def upper_end(chart: Chart) -> float:
    """The largest number on the vertical axis."""
    return max(numbers_of(chart)[1])


def test_curves_of_one_network_are_grouped(tmp_path: Path) -> None:
    charts = training_charts([run(tmp_path / "run", curves())])
    assert titles(charts) == [
        "train-cosa: losses",
        "train-cosa: losses of co-training",
        "train-cosa: thresholds",
        "train-cosa: labels from CAMs",
        "train-cosa: validation",
        "train-cosa: rate",
        "train-cosa: regulariser",
    ]
    losses, between, thresholds, shares, scores, rate, _ = labels(charts)
    assert losses.startswith(
        "train-cosa: losses: loss over step. loss: from 2 to 0.0333, between 0.0333 and 2; main: from 1 to "
    )
    assert between.startswith("train-cosa: losses of co-training: loss over step. c2s: from 0.143 to 0.05")
    assert "; contrastive: from 2 to 2, between 2 and 2" in between
    assert "low: from 0.271 to 0.31, between 0.271 and 0.31; high: from 0.521 to 0.56" in thresholds
    assert "labelled: from 0.75 to 0.75" in shares
    assert "collapsed: from 0 to 0, between 0 and 1" in shares
    assert "mIoU over epoch. miou: from 0.25 to 0.375" in scores
    assert "; cam miou: from 0.125 to 0.25, " in scores
    assert rate.startswith("train-cosa: rate: rate over step. run: a.h5: from ")
    assert not any("nan" in chart.drawing for chart in charts)


def test_shares_and_thresholds_have_the_whole_range(tmp_path: Path) -> None:
    _, _, thresholds, shares, *_ = training_charts([run(tmp_path / "run", curves())])
    assert upper_end(thresholds) == upper_end(shares) == 1


def test_a_line_begins_where_its_curve_does_and_bridges_gaps(tmp_path: Path) -> None:
    _, between, thresholds, shares, *_ = training_charts([run(tmp_path / "run", curves())])
    for chart in (between, thresholds):
        (left, _), _ = edges_of(chart)
        assert points_of(chart, "s0")[0][0] == pytest.approx(left, abs=0.1)  # nothing was measured before
    counts = [len(points_of(shares, colour)) for colour in ("s0", "s1", "s2")]
    assert counts == [4, 40, 40]  # labelled: steps 30, 40, 50 and 60
    place, late = np.arange(1.0, 5), np.array([np.nan, np.nan, 1, 2])
    whole = line_chart("t", [Line("a", place, np.ones(4)), Line("b", place, late, 1)], x="x", y="y")
    (left, _), (right, _) = edges_of(whole)
    assert points_of(whole, "s1")[0][0] == pytest.approx(left + 2 / 3 * (right - left), abs=0.1)


def test_curves_of_several_networks_are_laid_over_each_other(tmp_path: Path) -> None:
    runs = [run(tmp_path / "one", curves()), run(tmp_path / "two", curves(), curves())]
    found = labels(training_charts(runs))
    assert len(found) == 16
    low = next(label for label in found if label.startswith("train-cosa: low: low over step."))
    assert re.findall(r"(one|two): ([abc])\.h5: from 0.271", low) == [("one", "a"), ("two", "a"), ("two", "b")]
    charts = training_charts(runs)
    low_chart = next(chart for chart, label in zip(charts, found, strict=True) if label is low)
    assert upper_end(low_chart) == 1


def test_a_curve_that_is_alone_in_its_group_keeps_its_own_chart(tmp_path: Path) -> None:
    found = {name: values for name, values in curves().items() if name in ("curves/loss", "curves/epoch/miou")}
    found["curves/s2c"] = np.full(STEPS, np.nan, np.float32)
    charts = training_charts([run(tmp_path / "run", found)])
    assert titles(charts) == ["train-cosa: miou", "train-cosa: loss"]


def test_the_mixture_of_a_checkpoint_is_drawn_over_its_histogram(tmp_path: Path) -> None:
    (chart,) = mixture_charts([run(tmp_path / "run", curves() | threshold())])
    assert titles([chart]) == ["run: a.h5, scores of the batches at the end"]
    (label,) = labels([chart])
    assert label.startswith("run: a.h5, scores of the batches at the end: Histogram of 9")
    assert label.endswith(
        " values and the Gaussian components fitted to it. component 1: mean 0.200, weight 0.75; "
        "component 2: mean 0.750, weight 0.25; low 0.310; high 0.560"
    )


def test_one_threshold_is_one_mark(tmp_path: Path) -> None:
    found = curves() | threshold()
    found["threshold/high"] = found["threshold/low"]
    (label,) = labels(mixture_charts([run(tmp_path / "run", found)]))
    assert label.endswith("; threshold 0.310")


def test_a_collapsed_mixture_leaves_the_histogram(tmp_path: Path) -> None:
    (label,) = labels(mixture_charts([run(tmp_path / "run", curves() | threshold(np.zeros((0, 0))))]))
    assert label.endswith(" values, to which no components could be fitted. low 0.310; high 0.560")
    chart = mixture_chart(
        "t", np.linspace(0, 1, 5), np.zeros(4, int), Mixture(*np.zeros((3, 0))), [Mark("threshold", 0.5)]
    )
    assert "nan" not in chart.drawing


def test_what_a_checkpoint_need_not_hold_is_left_out(tmp_path: Path) -> None:
    assert mixture_charts([run(tmp_path / "none", curves())]) == []
    half = {name: values for name, values in threshold().items() if name != "threshold/edges"}
    assert mixture_charts([run(tmp_path / "half", half)]) == []
    fixed = threshold() | {"threshold/counts": np.zeros(256, np.int64)}
    assert mixture_charts([run(tmp_path / "fixed", fixed)]) == []


def test_the_thresholds_are_those_of_the_state_that_was_kept(tmp_path: Path) -> None:
    found = curves() | threshold() | {"threshold/low": np.asarray(0.2), "threshold/high": np.asarray(0.2)}
    (chart,) = mixture_charts([run(tmp_path / "run", found, kept_step=30)])
    assert titles([chart]) == ["run: a.h5, scores of the batches up to step 30"]
    assert labels([chart])[0].endswith("; threshold 0.200")
