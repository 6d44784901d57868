"""The charts of a page: what trainings measured, thresholds swept against masks, mixtures over their histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from pseudolabel.artefacts import open_artefact
from pseudolabel.labels.mixture import Mixture
from pseudolabel.runs.lineage import Node, RunFolder
from pseudolabel.runs.report.charts import Chart, Line, Mark, line_chart, mixture_chart

_EPOCH = "epoch/"
_SWEPT = ("miou", "false_positives", "false_negatives")
_HISTOGRAM = ("edges", "counts")
_MIXTURE = ("weight", "mean", "deviation")
_LIMITS: tuple[str, ...] = ("low", "high")
_FOLLOWED = ("edges", "counts", "mixture")


Curves = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Group:
    """Curves that are best seen in one chart.

    Attributes:
        title: What they are.
        y: Name of their axis.
        names: Of the curves.
        share: Whether their axis goes from 0 to 1.
    """

    title: str
    y: str
    names: tuple[str, ...]
    share: bool = False


_GROUPS = (
    _Group(
        "losses",
        "loss",
        ("loss", "main", "auxiliary", "partial", "consistency", "exclusion", "presence", "objectness"),
    ),
    _Group("losses of co-training", "loss", ("c2s", "s2c", "contrastive")),
    _Group("thresholds", "threshold", ("low", "high", "mixture/low_mean", "mixture/high_mean"), share=True),
    _Group("labels from CAMs", "share", ("labelled", "agreement", "collapsed"), share=True),
    _Group("validation", "mIoU", ("epoch/miou", "epoch/miou_tags", "epoch/cam_miou", "epoch/auxiliary_cam_miou")),
)
"""The regulariser, a thousandth of the other losses, would be a flat line among them."""

_SHARES = frozenset(name for group in _GROUPS if group.share for name in group.names)


def training_charts(runs: Sequence[RunFolder]) -> list[Chart]:
    """What trainings measured, by kind of training.

    Where there is one network of a kind, curves that belong together share a chart. Where there are several, every
    curve has its own chart, with a line for each network, so that they can be compared.
    """
    networks: dict[str, list[tuple[str, int, Curves]]] = {}
    for style, run in enumerate(runs):
        for node in run.of_kind("checkpoint"):
            known = networks.setdefault(node.header.stage, [])
            same = sum(label.startswith(f"{run.name}: ") for label, _, _ in known)
            known.append((f"{run.name}: {node.name}", style + len(runs) * same, dict(_curves(node))))
    charts = []
    for stage, found in sorted(networks.items()):
        grouped: set[str] = set()
        if len(found) == 1:
            curves = found[0][2]
            for group in _GROUPS:
                if len(curves.keys() & set(group.names)) > 1:
                    charts.append(_group_chart(stage, group, curves))
                    grouped.update(group.names)
        names = sorted({name for _, _, curves in found for name in curves} - grouped)
        charts += [_curve_chart(stage, name, found) for name in names]
    return charts


def _group_chart(stage: str, group: _Group, curves: Curves) -> Chart:
    lines = [
        Line(_words(name), _places(curves[name]), curves[name], style)
        for style, name in enumerate(group.names)
        if name in curves
    ]
    x = _counted(group.names[0])
    return line_chart(f"{stage}: {group.title}", lines, x=x, y=group.y, whole=True, share=group.share)


def _curve_chart(stage: str, name: str, networks: Sequence[tuple[str, int, Curves]]) -> Chart:
    lines = [
        Line(label, _places(curves[name]), curves[name], style) for label, style, curves in networks if name in curves
    ]
    words = _words(name)
    return line_chart(f"{stage}: {words}", lines, x=_counted(name), y=words, whole=True, share=name in _SHARES)


def _words(name: str) -> str:
    return name.removeprefix(_EPOCH).replace("_", " ").replace("/", ", ")


def _counted(name: str) -> str:
    return "epoch" if name.startswith(_EPOCH) else "step"


def _places(values: np.ndarray) -> np.ndarray:
    return np.arange(1, len(values) + 1)


def threshold_charts(runs: Sequence[RunFolder]) -> list[Chart]:
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


def mixture_charts(runs: Sequence[RunFolder]) -> list[Chart]:
    """The histogram of the maps' values and the mixture fitted to it, of all classes together.

    Of maps, where a threshold was searched; of the last batches, where one was followed in training.
    """
    charts = []
    for run in runs:
        charts += [chart for node in run.of_kind("checkpoint") if (chart := _followed_chart(run, node))]
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


def _followed_chart(run: RunFolder, node: Node) -> Chart | None:
    """A training's own threshold in the state that was kept, and the scores that it follows, if it does."""
    with open_artefact(node.path, "checkpoint") as artefact:
        if not _holds(artefact.file, "threshold", (*_FOLLOWED, *_LIMITS)):
            return None
        edges, counts, table = (artefact.file[f"threshold/{name}"][:] for name in _FOLLOWED)
        limits = [(name, float(artefact.file[f"threshold/{name}"][()])) for name in _LIMITS]
    if not counts.any():
        return None  # fixed thresholds
    if table.size == 0:
        table = np.zeros((len(_MIXTURE), 0))  # it has collapsed
    if edges.shape != (len(counts) + 1,) or table.ndim != 2 or len(table) != len(_MIXTURE):
        return None
    if len({value for _, value in limits}) == 1:
        limits = [("threshold", limits[0][1])]
    marks = [Mark(name, value, style) for style, (name, value) in enumerate(limits)]
    step = node.header.facts.get("kept_step")
    title = f"{run.name}: {node.name}, scores of the batches " + (f"up to step {step}" if step else "at the end")
    return mixture_chart(title, edges, counts, Mixture(*table), marks)


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
