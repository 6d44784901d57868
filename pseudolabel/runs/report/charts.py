"""Charts drawn by Matplotlib as SVG to be set into a page: lines, and a histogram under its mixture."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pseudolabel.labels.mixture import Mixture

COLOURS = ("s0", "s1", "s2", "s3", "s4", "s5")
"""The page's colours of lines; further lines repeat them."""
# Dashes, so that colour is not all that tells lines apart.
_LINES = ((), (8, 4), (3, 3), (12, 3, 3, 3), (1, 4), (16, 6))
_MARKS = ((), (5, 3), (2, 3))
_TALL = 0.98  # share of a histogram's bins that are shown in full; taller ones are cut
_ROOM = 1.04  # from the largest value to the top of an axis
_POINTS = 150  # a line has at most so many: more cannot be told apart

# Matplotlib takes no CSS variables: it draws in these, and the page's variables replace them.
_INKS = {name: f"#{number:06x}" for number, name in enumerate(("ink", "dim", "rule", "area", *COLOURS), start=1)}
_STYLE = {
    "axes.axisbelow": True, "axes.grid": True, "axes.labelcolor": _INKS["dim"], "axes.xmargin": 0,
    "axes.ymargin": _ROOM - 1, "figure.constrained_layout.h_pad": 0.1, "font.sans-serif": ["DejaVu Sans"],
    "font.size": 13, "grid.color": _INKS["rule"], "grid.linewidth": 1, "lines.scale_dashes": False,
    "lines.solid_capstyle": "round", "path.simplify": False, "svg.fonttype": "none", "text.parse_math": False,
    "xtick.bottom": False, "xtick.labelcolor": _INKS["dim"], "ytick.labelcolor": _INKS["dim"], "ytick.left": False,
}  # fmt: skip
_styled = matplotlib.style.context(["default", _STYLE])  # whatever a user's own settings are


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: For the key.
        x: float (N,), ascending.
        y: float (N,); what is not finite is left out.
        style: Which colour and dash.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    style: int = 0


@dataclass(frozen=True)
class Mark:
    """An upright line at ``x`` with a name for the key."""

    name: str
    x: float
    style: int = 0


Key = tuple[str, str, Sequence[float]]


@dataclass(frozen=True)
class Chart:
    """A drawing and what the page says beside it.

    Attributes:
        title: What is shown.
        description: The same in words, for who cannot see it.
        drawing: What an ``svg`` of this width and height contains.
        key: Name, colour and dashes of each line.
    """

    title: str
    description: str
    drawing: str
    key: Sequence[Key]
    width: ClassVar[int] = 480
    height: ClassVar[int] = 270


@_styled
def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    marks: Sequence[Mark] = (),
    whole: bool = False,
    share: bool = False,
) -> Chart:
    """Lines over common axes.

    Args:
        title: What is shown.
        lines: At least one with a finite value.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        marks: Upright lines.
        whole: Whether x counts something, so that there is nothing to say between whole numbers.
        share: Whether y goes from 0 to 1, whatever part of that there is.
    """
    kept = [line for line in map(_thinned, lines) if len(line.x)]
    figure, axes = _axes(x, y, whole=whole)
    key = _draw(axes, kept, marks)
    low, high = axes.get_ylim()
    axes.set_ylim(low if any(line.y.min() < 0 for line in kept) else 0, max(high, _ROOM) if share else high)
    said = "; ".join(
        f"{line.name}: from {line.y[0]:.3g} to {line.y[-1]:.3g}, between {line.y.min():.3g} and {line.y.max():.3g}"
        for line in kept
    )
    return Chart(title, f"{y} over {x}. {said}", _svg(figure), key)


@_styled
def mixture_chart(title: str, edges: np.ndarray, counts: np.ndarray, mixture: Mixture, marks: Sequence[Mark]) -> Chart:
    """A histogram as shares of its area, the components that were fitted to it, and thresholds; tall bins are cut.

    Args:
        title: What is shown.
        edges: float (B + 1,), equidistant.
        counts: int (B,).
        mixture: The components; there may be none.
        marks: The thresholds.
    """
    density = counts / max(1, counts.sum()) / (edges[1] - edges[0])
    centres = (edges[1:] + edges[:-1]) / 2
    components = np.exp(mixture.log_joint(centres))
    tall = float(np.quantile(density, _TALL))  # one bin of ones must not flatten the rest
    top = _ROOM * (max(float(components.max(initial=0)), tall) or 1)
    lines = [
        Line(f"component {number + 1}: mean {mean:.3f}, weight {weight:.2f}", centres, row, number)
        for number, (mean, weight, row) in enumerate(zip(mixture.mean, mixture.weight, components, strict=True))
    ]
    figure, axes = _axes("value", "density")
    axes.stairs(np.minimum(density, top), edges, fill=True, color=_INKS["area"], linewidth=0)
    key = _draw(axes, lines, marks)
    axes.set(xlim=(0, 1), ylim=(0, top))
    said = "; ".join([line.name for line in lines] + [f"{mark.name} {mark.x:.3f}" for mark in marks])
    fitted = " and the Gaussian components fitted to it" if lines else ", to which no components could be fitted"
    return Chart(title, f"Histogram of {int(counts.sum())} values{fitted}. {said}", _svg(figure), key)


def _axes(x: str, y: str, *, whole: bool = False) -> tuple[Figure, Axes]:
    """A figure, a point of which is a unit of its SVG, and its axes."""
    figure = Figure((Chart.width / 72, Chart.height / 72), frameon=False, layout="constrained")
    axes = figure.subplots(subplot_kw={"frame_on": False})
    axes.set(xlabel=x, ylabel=y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole and axis is axes.xaxis))
        axis.set_major_formatter("{x:.6g}")
    return figure, axes


def _draw(axes: Axes, lines: Sequence[Line], marks: Sequence[Mark]) -> list[Key]:
    """Draw lines and marks.

    Returns:
        Their key: name, colour and dashes of each.
    """
    key: list[Key] = []
    for line in lines:
        points, style = len(line.x), line.style % len(COLOURS)
        key.append((line.name, COLOURS[style], _LINES[style]))
        x, y = (np.resize(values, max(2, points)) for values in (line.x, line.y))  # one point is twice there: a dot
        width, dashes = (2.2, _LINES[style]) if points > 1 else (8, ())
        axes.plot(x, y, color=_INKS[COLOURS[style]], linewidth=width, dashes=dashes)
    for mark in marks:
        dashes = _MARKS[mark.style % len(_MARKS)]
        key.append((f"{mark.name} {mark.x:.3g}", "ink", dashes))
        axes.axvline(mark.x, color=_INKS["ink"], linewidth=1.6, dashes=dashes)
    return key


def _svg(figure: Figure) -> str:
    """What stands in the figure's ``svg``, without ids: several stand in one page, and nothing needs them."""
    for artist in figure.findobj():
        artist.set_clip_on(False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    text = re.sub(r'(?s)\A.*?</defs>|</svg>\s*\Z| id="[^"]*"', "", stream.getvalue())
    for name, ink in _INKS.items():
        text = text.replace(ink, f"var(--{name})")
    return text


def _thinned(line: Line) -> Line:
    """A line without what is not finite, and with the means of neighbouring points where there are very many."""
    known = np.isfinite(line.y)
    x, y = line.x[known], line.y[known].astype(np.float64)
    count = math.ceil(len(x) / _POINTS)
    if count > 1:
        starts = np.arange(0, len(x), count)
        sizes = np.diff(np.append(starts, len(x)))
        x, y = (np.add.reduceat(values, starts) / sizes for values in (x, y))
    return Line(line.name, x, y, line.style)
