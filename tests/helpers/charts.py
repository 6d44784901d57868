"""What can be seen in a chart of a report, read from its drawing."""

from __future__ import annotations

import re

from pseudolabel.runs.report.charts import Chart

Point = tuple[float, float]


def points_of(chart: Chart, colour: str) -> list[Point]:
    """The points of the first line of a colour of the page, rightwards and downwards from the upper left corner."""
    found = re.search(rf'd="([^"]*)" style="[^"]*stroke: var\(--{colour}\)', chart.drawing)
    assert found
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", found[1])]


def lines_of(chart: Chart, colour: str) -> list[str]:
    """The dashes of each line of a colour of the page."""
    styles = re.findall(rf'style="([^"]*stroke: var\(--{colour}\)[^"]*)"', chart.drawing)
    return ["".join(re.findall(r"stroke-dasharray: ([^;]*)", style)).replace(" ", "") for style in styles]


def edges_of(chart: Chart) -> tuple[Point, Point]:
    """The lower left and the upper right corner of the axes, which the lines of the grid reach."""
    paths = re.findall(r'd="M (\S+) (\S+) \nL (\S+) (\S+) \n" style="[^"]*var\(--rule\)', chart.drawing)
    corners = [(float(x), float(y)) for path in paths for x, y in (path[:2], path[2:])]
    across, down = zip(*corners, strict=True)
    return (min(across), max(down)), (max(across), min(down))


def numbers_of(chart: Chart) -> tuple[list[float], list[float]]:
    """The numbers on the horizontal and on the vertical axis."""
    found = re.findall(
        r"text-anchor: (middle|end)[^>]*>([-\d.e]+)</text>", chart.drawing.replace("\N{MINUS SIGN}", "-")
    )
    x, y = ([float(text) for anchor, text in found if anchor == wanted] for wanted in ("middle", "end"))
    return x, y
