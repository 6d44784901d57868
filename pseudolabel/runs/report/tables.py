"""The tables of a comparison as text, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pseudolabel.runs.comparison import HEADLINES
from pseudolabel.runs.headline_scores import NO_CAMS
from pseudolabel.runtime.formatting import counted, duration, part_of_all, percent, short, size, span

_MEASURES = {
    "miou": "mIoU, %",
    "interval": "95 % interval",
    "precision": "precision, %",
    "recall": "recall, %",
    "boundary_iou": "boundary IoU, %",
    "labelled_share": "pixels labelled, %",
}
_SHORT = {
    "pseudo_labels": "pseudo labels",
    "cams": "CAMs",
    "segmenter": "segmenter",
    "segmenter_with_tags": "segmenter with tags",
}
_LONGEST = 60  # characters of a value in a note


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows.
        head: Names of the columns.
        sections: Heading (or nothing) and rows of each part; the first cell of a row names it.
        words: How many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    head: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]]
    words: int = 1


def score_table(comparison: Mapping[str, Any]) -> Table:
    """What every run reached: a section a figure, a column a run; none of CAMs where no run has any."""
    runs = comparison["runs"]
    sections = []
    for key in _asked(comparison):
        figures = [run["headline_scores"][key] for run in runs]
        rows = [(words, *(_measure(figure, name) for figure in figures)) for name, words in _MEASURES.items()]
        rows.append(("split, images", *(_images(figure) for figure in figures)))
        rows.append(("tag filter", *(figure["tags"] or "-" for figure in figures)))
        rows.append(("a predicted 255 is", *(figure["ignored"] or "-" for figure in figures)))
        for words, state in _STATED.items():
            cells = [state(figure["protocol"]) for figure in figures]
            if set(cells) != {"-"}:
                rows.append((words, *cells))
        if any(figure["oracle"] for figure in figures):
            rows.append(("masks used before", *("; ".join(figure["oracle"]) or "no" for figure in figures)))
        rows.append(("scores", *(figure["scores"] or "-" for figure in figures)))
        sections.append((HEADLINES[key], rows))
    return Table("what every run reached", ["", *(run["name"] for run in runs)], sections)


def cost_table(comparison: Mapping[str, Any]) -> Table:
    """What every stage of every run took: a section a run."""
    sections = []
    for run in comparison["runs"]:
        cost = run["cost"]
        rows = [
            (row["artefact"], row["stage"] + (" (outside the folder)" if row["outside"] else ""), *_spent(row))
            for row in cost["stages"]
        ]
        if cost["to_segmenter"]:
            rows.append(("up to the segmenter", *_sum(cost["to_segmenter"])))
        rows.append(("in total", *_sum(cost["total"])))
        sections.append((run["name"], rows))
    return Table(
        "what every stage took", ["artefact", "stage", "time", "processor", "memory", "disk"], sections, words=2
    )


def threshold_table(comparison: Mapping[str, Any]) -> Table | None:
    """The thresholds of every run: a section a run; None if there are none."""
    sections = []
    for run in comparison["runs"]:
        rows = [
            (
                row["artefact"],
                short(row["method"]) + (" (oracle)" if row["oracle"] else ""),
                short(row["fitted_on"]),
                ", ".join(row["used_by"]) or "nothing",
                *(_threshold(row[name]) for name in ("value", "low", "high")),
                percent(row["miou"]),
            )
            for row in run["thresholds"]
        ]
        if rows:
            sections.append((run["name"], rows))
    head = ["artefact", "method", "fitted on", "used by", "value", "low", "high", "mIoU, %"]
    return Table("thresholds, and what they were fitted on", head, sections, words=4) if sections else None


def supervision_table(comparison: Mapping[str, Any]) -> Table | None:
    """Pseudo labels by what supervised each image; None where no run has images of several kinds."""
    split = {run["name"]: run["headline_scores"]["pseudo_labels"]["by_supervision"] or {} for run in comparison["runs"]}
    if all(len(parts) < 2 for parts in split.values()):
        return None
    sections = []
    for name, parts in split.items():
        rows = [
            (
                kind,
                str(part["images"]),
                *(percent(part[side]) for side in ("unfiltered", "tag_filtered")),
                "-" if part["annotation_seconds"] is None else short(part["annotation_seconds"]),
            )
            for kind, part in parts.items()
        ]
        if rows:
            sections.append((name, rows))
    head = ["supervised by", "images", "mIoU without tags, %", "mIoU with tags, %", "annotation, s an image"]
    return Table("pseudo labels by what supervised each image", head, sections)


def other_table(comparison: Mapping[str, Any]) -> Table | None:
    """Scores that answer none of the questions; None if there are none."""
    sections = []
    for run in comparison["runs"]:
        rows = [
            (row["scores"], row["scored"], row["made_from"], short(row["split"]), row["tags"], percent(row["miou"]))
            for row in run["other_scores"]
        ]
        if rows:
            sections.append((run["name"], rows))
    head = ["scores", "of", "made from", "split", "tag filter", "mIoU, %"]
    return Table("other scores", head, sections, words=5) if sections else None


def difference_notes(comparison: Mapping[str, Any]) -> list[str]:
    """What the runs do not have in common, a line each."""
    notes = []
    for difference in comparison["differences"]:
        key, hashed = difference["key"].replace("_", " "), difference["key"] == "ids_sha256"
        about = ", ".join(_SHORT.get(what, what) for what in difference["what"])
        words = "hash of the image ids" if hashed else key
        values = (
            f"{run} = {str(value)[:12] if hashed else _cut(value)}" for run, value in difference["values"].items()
        )
        notes.append(f"{words}{'' if about == words else f' of {about}'}: {'; '.join(values)}")
    return notes


def gap_notes(comparison: Mapping[str, Any]) -> list[str]:
    """Why figures are missing, which other scores would fit, and what could not be read, a line each."""
    notes, asked = [], _asked(comparison)
    for run in comparison["runs"]:
        reasons: dict[str, list[str]] = {}
        for key in asked:
            figure = run["headline_scores"][key]
            if figure["reason"]:
                reasons.setdefault(figure["reason"], []).append(_SHORT[key])
            for name, why in figure["reasons"].items():
                reasons.setdefault(f"no {name.replace('_', ' ')}: {why}", []).append(_SHORT[key])
            if figure["others"]:
                text = f"further scores that fit: {', '.join(figure['others'])}"
                reasons.setdefault(text, []).append(_SHORT[key])
            if key.startswith("segmenter") and not figure["reason"] and figure["trained_on"] is None:
                text = "whether its network was trained on these images is not known"
                reasons.setdefault(text, []).append(_SHORT[key])
        notes += [f"{run['name']}: {', '.join(whats)}: {reason}" for reason, whats in reasons.items()]
        notes += [f"{run['name']}: {name} is not used: {why}" for name, why in run["unplaced_scores"].items()]
        notes += [f"{run['name']}: {name} is not read: {why}" for name, why in run["unreadable"].items()]
        unstated = run["cost"]["total"]["unstated"]
        if unstated:
            notes.append(
                f"{run['name']}: {unstated} of {run['cost']['total']['stages']} stages do not state their cost"
            )
    return notes


def oracle_notes(comparison: Mapping[str, Any]) -> list[str]:
    """Every use of pixel masks before evaluation, and the artefacts that it has touched, a line each."""
    notes = []
    for run in comparison["runs"]:
        touched: dict[str, list[str]] = {}
        for name, reasons in run["oracle"].items():
            for reason in reasons:
                touched.setdefault(reason, []).append(name)
        notes += [f"{run['name']}: {reason}: {', '.join(names)}" for reason, names in touched.items()]
    return notes


def _asked(comparison: Mapping[str, Any]) -> list[str]:
    """The keys of the figures that have a section; none of CAMs where no run has any, where nothing is missing."""
    runs = comparison["runs"]
    return [key for key in HEADLINES if any(run["headline_scores"][key]["reason"] != NO_CAMS for run in runs)]


def _scales(protocol: Mapping[str, Any]) -> str:
    """Scales of the network's input, and whether it saw the mirrored image, too."""
    if protocol.get("scales") is None:
        return "-"
    mirrored = ", mirrored" if protocol.get("flip") else ""
    propagated = f", propagated {protocol['propagate']} x" if protocol.get("propagate") else ""
    return short(protocol["scales"]) + mirrored + propagated


_REFINERS = {"crf": "CRF", "par": "PAR"}
"""Key of the protocol to name, of every refiner."""

_STATED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "scales": _scales,
    "refined by": lambda protocol: _refiner(protocol),
    "threshold": lambda protocol: _threshold(protocol.get("threshold")),
    "region vote": lambda protocol: str(protocol.get("region_vote") or "-"),
    "external models": lambda protocol: "; ".join(protocol.get("external_models") or ()) or "-",
    "box-constrained": lambda protocol: str(protocol.get("held_to") or "-"),
    "annotation, hours": lambda protocol: _hours(protocol),
}
"""What of a protocol stands beside the scores, where it was stated; the document has all of it."""


def _refiner(protocol: Mapping[str, Any]) -> str:
    """What refined the maps, in the order of ``_REFINERS``."""
    used = [f"{title}: {short(protocol[key])}" for key, title in _REFINERS.items() if protocol.get(key)]
    return "; ".join(used) or "-"


def _measure(figure: Mapping[str, Any], name: str) -> str:
    return span(figure[name]) if name == "interval" else percent(figure[name])


def _images(figure: Mapping[str, Any]) -> str:
    if figure["reason"]:
        return "-"
    return f"{short(figure['split'])}, {part_of_all(figure['images'], figure['unscored'])}"


def _sum(total: Mapping[str, Any]) -> Iterable[str]:
    return (counted(total["stages"], "stage"), *_spent(total))


def _spent(row: Mapping[str, Any]) -> Iterable[str]:
    times = (duration(row[name]) for name in ("wall_seconds", "cpu_seconds"))
    return (*times, *(size(row[name]) for name in ("peak_memory_bytes", "bytes")))


def _threshold(value: Any) -> str:
    """A threshold, or the smallest and largest where each class has its own."""
    if isinstance(value, Mapping) and value:
        return f"{min(value.values()):.3g} to {max(value.values()):.3g}"
    return f"{value:.3g}" if isinstance(value, int | float) else "-"


def _hours(protocol: Mapping[str, Any]) -> str:
    """What labels cost to draw; computed from other than the published averages, it says so."""
    hours = protocol.get("annotation_hours")
    if not isinstance(hours, int | float):
        return "-"
    return short(hours) + (" (own averages)" if str(protocol.get("annotation_averages")).endswith("(as given)") else "")


def _cut(value: Any) -> str:
    text = "not stated" if value is None else short(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
