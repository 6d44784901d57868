"""The charts of a page: what trainings measured, thresholds swept against masks, mixtures over their histograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from pseudolabel.artefacts import open_artefact
from pseudolabel.mixture import Mixture
from pseudolabel.reporting.charts import Line, Mark, line_chart, mixture_chart
from pseudolabel.reporting.html import Html
from pseudolabel.runfolder import Node, RunFolder

_EPOCH = "epoch/"
_SWEPT = ("miou", "false_positives", "false_negatives")
_HISTOGRAM = ("edges", "counts")
_MIXTURE = ("weight", "mean", "deviation")


def training_charts(runs: Sequence[RunFolder]) -> list[Html]:
    """One chart for each thing that a kind of training measured, with a line for each network so trained."""
    lines: dict[tuple[str, str], list[Line]] = {}
    for style, run in enumerate(runs):
        for node in run.of_kind("checkpoint"):
            for name, values in _curves(node):
                known = lines.setdefault((node.header.stage, name), [])
                label = f"{run.name}: {node.name}"
                same = [line for line in known if line.name.startswith(f"{run.name}: ")]
                known.append(Line(label, np.arange(1, len(values) + 1), values, style + len(runs) * len(same)))
    return [
        line_chart(
            f"{stage}: {name.removeprefix(_EPOCH).replace('_', ' ')}",
            found,
            x="epoch" if name.startswith(_EPOCH) else "step",
            y=name.removeprefix(_EPOCH).replace("_", " "),
            whole=True,
        )
        for (stage, name), found in sorted(lines.items())
    ]


def threshold_charts(runs: Sequence[RunFolder]) -> list[Html]:
    """mIoU at every threshold, where it was swept against masks, with false positives and negatives."""
    charts = []
    for run in runs:
        for node in run.of_kind("thresholds"):
            with open_artefact(node.path, "thresholds") as artefact:
                if not _holds(artefact.file, "curve", ("threshold", *_SWEPT)):
                    continue
                x = artefact.file["curve/threshold"][:]
                lines = [
                    Line(name.replace("_", " "), x, artefact.file[f"curve/{name}"][:], style)
                    for style, name in enumerate(_SWEPT)
                ]
            title = f"{run.name}: {node.name}, {node.header.facts.get('fitted_on')}"
            charts.append(line_chart(title, lines, x="threshold", y="share", marks=_marks(node)))
    return charts


def mixture_charts(runs: Sequence[RunFolder]) -> list[Html]:
    """The histogram of the maps' values and the mixture fitted to it, of all classes together."""
    charts = []
    for run in runs:
        for node in run.of_kind("thresholds"):
            with open_artefact(node.path, "thresholds") as artefact:
                if not _holds(artefact.file, "mixture", _MIXTURE) or not _holds(artefact.file, "histogram", _HISTOGRAM):
                    continue
                edges = artefact.file["histogram/edges"][:]
                counts = _common(artefact.file["histogram/counts"])
                parts = (_common(artefact.file[f"mixture/{name}"]) for name in _MIXTURE)
                mixture = Mixture(*parts)
            title = f"{run.name}: {node.name}, {node.header.facts.get('fitted_on')}"
            charts.append(mixture_chart(title, edges, counts, mixture, _marks(node)))
    return charts


def _curves(node: Node) -> Iterator[tuple[str, np.ndarray]]:
    """Every row of numbers that a training has kept, by name."""
    with open_artefact(node.path, "checkpoint") as artefact:
        if "curves" not in artefact.file:
            return
        found: dict[str, np.ndarray] = {}

        def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.dtype.kind in "fiu":
                found[name] = item[:].astype(np.float64)

        artefact.file["curves"].visititems(take)
    yield from ((name, values) for name, values in found.items() if np.isfinite(values).any())


def _holds(file: h5py.File, group: str, names: Sequence[str]) -> bool:
    """Whether a file has all of these datasets; what it holds besides its thresholds is for its writer to choose."""
    return all(f"{group}/{name}" in file for name in names)


def _common(dataset: h5py.Dataset) -> np.ndarray:
    """The row of all classes together, where there is one a class."""
    return np.asarray(dataset[0] if dataset.ndim == 2 else dataset[:])


def _marks(node: Node) -> list[Mark]:
    """The thresholds that were taken, where there is one for all classes."""
    facts = node.header.facts
    values = [(name, facts.get(name)) for name in ("value", "low", "high")]
    return [Mark(name, value, style) for style, (name, value) in enumerate(values) if isinstance(value, int | float)]
