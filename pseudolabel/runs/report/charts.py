"""Small SVG charts: lines, and a histogram under its mixture. Colours are the page's, so that they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pseudolabel.labels.mixture import Mixture
from pseudolabel.runs.report.html import Html, element, joined

STYLES = 6
"""How many kinds of lines the page has; further ones repeat."""
_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 10, 10, 44
_TALL = 0.98  # share of a histogram's bins that are shown in full; taller ones are cut
_POINTS = 150  # a line has at most so many: more cannot be told apart


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


@dataclass(frozen=True)
class Axes:
    """From values to places in the picture.

    Attributes:
        x: Smallest and largest value.
        y: The same.
        whole: Whether x counts something, so that there is nothing to say between whole numbers.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    whole: bool = False

    def across(self, value: float) -> float:
        """Where a value of x lies."""
        return _LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (_WIDTH - _LEFT - _RIGHT)

    def down(self, value: float) -> float:
        """Where a value of y lies."""
        return _HEIGHT - _BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, x: np.ndarray, y: np.ndarray) -> str:
        """A line through points."""
        points = (f"{self.across(a):.1f} {self.down(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        return "M" + "L".join(points)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    marks: Sequence[Mark] = (),
    whole: bool = False,
    share: bool = False,
) -> Html:
    """Lines over common axes.

    Args:
        title: What is shown.
        lines: At least one with a finite value.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        marks: Upright lines.
        whole: Whether x counts something.
        share: Whether y goes from 0 to 1, whatever part of that there is.
    """
    kept = [_thinned(line) for line in lines]
    kept = [line for line in kept if len(line.x)]
    values = np.concatenate([line.y for line in kept])
    places = np.concatenate([line.x for line in kept] + [[mark.x] for mark in marks])
    bounds = [0.0, 1.0] if share else [0.0] if values.min() >= 0 else []
    axes = Axes(_span(places), _span(np.append(values, bounds)), whole)
    drawn = [
        element("path", d=axes.path(line.x, line.y), class_=f"line s{line.style % STYLES}")
        if len(line.x) > 1
        else element("circle", cx=f"{axes.across(line.x[0]):.1f}", cy=f"{axes.down(line.y[0]):.1f}", r=4,
                     class_=f"dot s{line.style % STYLES}")
        for line in kept
    ]  # fmt: skip
    said = "; ".join(
        f"{line.name}: from {line.y[0]:.3g} to {line.y[-1]:.3g}, between {line.y.min():.3g} and {line.y.max():.3g}"
        for line in kept
    )
    return _figure(title, f"{y} over {x}. {said}", axes, (x, y), [*drawn, *_marks(axes, marks)], _key(kept, marks))


def mixture_chart(title: str, edges: np.ndarray, counts: np.ndarray, mixture: Mixture, marks: Sequence[Mark]) -> Html:
    """A histogram as shares of its area, the components that were fitted to it, and thresholds; tall bins are cut.

    Args:
        title: What is shown.
        edges: float (B + 1,), equidistant.
        counts: int (B,).
        mixture: The components; there may be none.
        marks: The thresholds.
    """
    step = float(edges[1] - edges[0])
    density = counts / max(1, counts.sum()) / step
    centres = (edges[1:] + edges[:-1]) / 2
    components = np.exp(mixture.log_joint(centres))
    tall = float(np.quantile(density, _TALL))  # one bin of ones must not flatten the rest
    top = max(float(components.max(initial=0)), tall)
    axes = Axes((0.0, 1.0), _span(np.array([0.0, top])))
    corners = np.repeat(edges, 2)
    heights = np.concatenate([[0.0], np.repeat(np.minimum(density, axes.y[1]), 2), [0.0]])
    drawn = [element("path", d=axes.path(corners, heights) + "Z", class_="area")]
    lines = []
    for number, row in enumerate(components):
        name = f"component {number + 1}: mean {mixture.mean[number]:.3f}, weight {mixture.weight[number]:.2f}"
        lines.append(Line(name, centres, row, number))
        drawn.append(element("path", d=axes.path(centres, row), class_=f"line s{number % STYLES}"))
    said = "; ".join([line.name for line in lines] + [f"{mark.name} {mark.x:.3f}" for mark in marks])
    fitted = " and the Gaussian components fitted to it" if lines else ", to which no components could be fitted"
    what = f"Histogram of {int(counts.sum())} values{fitted}. {said}"
    return _figure(title, what, axes, ("value", "density"), [*drawn, *_marks(axes, marks)], _key(lines, marks))


def _figure(title: str, description: str, axes: Axes, names: tuple[str, str], drawn: Sequence[Html], key: Html) -> Html:
    picture = element(
        "svg",
        _grid(axes, names),
        drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title}: {description}",
    )
    return element("figure", element("figcaption", title), picture, key, class_="chart")


def _grid(axes: Axes, names: tuple[str, str]) -> Html:
    parts = []
    for value in ticks(*axes.x, least=1 if axes.whole else 0):
        place = f"{axes.across(value):.1f}"
        parts.append(element("line", x1=place, x2=place, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="grid"))
        parts.append(element("text", _number(value), x=place, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
    for value in ticks(*axes.y):
        place = f"{axes.down(value):.1f}"
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=place, y2=place, class_="grid"))
        parts.append(element("text", _number(value), x=_LEFT - 6, y=place, dy="0.35em", text_anchor="end"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", names[0], x=middle, y=_HEIGHT - 6, text_anchor="middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f"translate(13 {middle}) rotate(-90)"
    parts.append(element("text", names[1], transform=turned, text_anchor="middle"))
    return joined(parts)


def _marks(axes: Axes, marks: Sequence[Mark]) -> list[Html]:
    found = []
    for mark in marks:
        place = f"{axes.across(mark.x):.1f}"
        style = f"mark m{mark.style % STYLES}"
        found.append(element("line", x1=place, x2=place, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_=style))
    return found


def _key(lines: Sequence[Line], marks: Sequence[Mark]) -> Html:
    """What each line is: a short piece of it, and its name."""
    items = [(f"line s{line.style % STYLES}", line.name) for line in lines]
    items += [(f"mark m{mark.style % STYLES}", f"{mark.name} {mark.x:.3g}") for mark in marks]
    pieces = [
        element(
            "li",
            element(
                "svg",
                element("line", x1=0, x2=28, y1=6, y2=6, class_=style),
                viewBox="0 0 28 12",
                width=28,
                height=12,
                aria_hidden="true",
            ),
            " ",
            name,
        )
        for style, name in items
    ]
    return element("ul", pieces, class_="key")


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


def _span(values: np.ndarray) -> tuple[float, float]:
    """A range for an axis, never empty."""
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high + 0.04 * (high - low)
    return low - 0.5, low + 0.5


def ticks(low: float, high: float, *, most: int = 6, least: float = 0) -> list[float]:
    """Round numbers within a range: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: Smallest value.
        high: Largest value, above it.
        most: How many numbers there may be.
        least: The smallest step between them.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) < most)
    step = max(step, least)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _number(value: float) -> str:
    if 1e-3 <= abs(value) < 1e5 or abs(value) < 1e-12:
        return f"{value:.6g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"
