"""What runs reached and what it took, side by side: the function behind ``compare``.

Reads the headers of artefacts, in which the results of evaluate-masks stand; opens no maps, no photographs, no weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.runs.costs import WHERE, cost_data
from pseudolabel.runs.headline_scores import HeadlineScore, HeadlineScores, Score, find_headline_scores
from pseudolabel.runs.lineage import Node, RunFolder, read_runs

HEADLINES = {
    "pseudo_labels": "pseudo labels of the training images",
    "cams": "plain CAMs of the training images",
    "segmenter": "final segmenter on other images, without image tags",
    "segmenter_with_tags": "final segmenter on other images, with image tags",
}
"""What is asked of every run."""
MEASURES = ("miou", "interval", "precision", "recall", "boundary_iou", "labelled_share")
_UNASKED = {
    "boundary_iou": "scored with --boundary none",
    "interval": "scored with --resamples 0, or of one image",
}
_NOT_PROTOCOL = ("threshold", "trained_on", "annotation_hours", "annotation_averages", "scored", "interval", "oracle")
"""What differs between any two runs, or stands in a row of its own."""


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare runs by their artefacts' headers and scores.

    Args:
        folders: One a run.

    Returns:
        ``runs``, for each ``name``, ``path``, ``headline_scores`` (by the keys of HEADLINES: as ``headline_data``),
        ``other_scores``, ``unplaced_scores`` (name to reason), ``thresholds``, ``cost`` (as ``cost_data``),
        ``classes``, ``oracle`` (artefact to reasons) and ``unreadable`` (file to reason); and ``differences``: in which
        the runs were not measured alike, for each ``key``, ``values`` by run, and ``what`` (the scores that it is
        about, ``classes`` or ``cost``).

    Raises:
        InputError: A folder is missing, named twice, or holds no artefact.
    """
    runs = read_runs(folders)
    return compare(runs, [find_headline_scores(run) for run in runs])


def compare(runs: Sequence[RunFolder], scores: Sequence[HeadlineScores]) -> dict[str, Any]:
    """As ``compare_runs``, of runs whose headers were read.

    Args:
        runs: The runs.
        scores: Of each run.
    """
    rows = [run_data(run, found) for run, found in zip(runs, scores, strict=True)]
    return {"runs": rows, "differences": differences(rows)}


def run_data(run: RunFolder, scores: HeadlineScores) -> dict[str, Any]:
    """One run as JSON data."""
    classes = next((node.header.classes for node in run.nodes if node.kind == "scores"), run.nodes[0].header.classes)
    return {
        "name": run.name,
        "path": str(run.folder),
        "headline_scores": {key: headline_data(headline) for key, headline in scores.chosen.items()},
        "other_scores": [other_data(score) for score in scores.rest],
        "unplaced_scores": dict(scores.unplaced),
        "thresholds": [threshold_data(run, node) for node in run.of_kind("thresholds")],
        "cost": cost_data(run, scores.segmenter),
        "classes": list(classes),
        "oracle": {node.name: list(node.header.oracle) for node in run.nodes if node.header.oracle},
        "unreadable": dict(run.unreadable),
    }


def headline_data(headline: HeadlineScore) -> dict[str, Any]:
    """One headline score as JSON data.

    Returns:
        Every one of MEASURES, ``iou`` by class, ``images``, ``unscored`` (masks of images outside the list that was
        scored), ``trained_on`` (of how many the network behind them has learnt, None where unknown), ``split``,
        ``tags``, ``ignored`` (what a predicted 255 counts as), ``by_supervision`` (the scores of images by their kinds
        of labels, or None), ``oracle``, ``protocol``; ``scores`` and ``scored`` (names of artefacts), ``others`` (of
        further scores that fit). ``reason`` says why all of them are None, ``reasons`` why single ones are.
    """
    if headline.score is None or headline.side is None:
        numbers = ("iou", "images", "unscored", "trained_on")
        empty = dict.fromkeys((*MEASURES, *numbers, "split", "tags", "ignored", "by_supervision", "scores", "scored"))
        return {**empty, "oracle": [], "protocol": {}, "others": [], "reason": headline.reason, "reasons": {}}
    score, side = headline.score, headline.side
    protocol = score.node.header.protocol
    measured = {key: side.get(key) for key in MEASURES}
    return {
        **measured,
        "iou": dict(side.get("iou") or {}),
        "images": score.facts.get("images"),
        "unscored": score.facts.get("unscored") or 0,
        "trained_on": score.facts.get("trained_on"),
        "split": protocol.get("split"),
        "tags": "image tags" if side is score.facts.get("tag_filtered") else protocol.get("tag_filter", "unknown"),
        "ignored": protocol.get("predicted_255"),
        "by_supervision": score.facts.get("by_supervision"),
        "scores": score.node.name,
        "scored": score.scored.name,
        "oracle": list(score.node.header.oracle),
        "protocol": dict(protocol),
        "others": [other.node.name for other in headline.others],
        "reason": None,
        "reasons": {key: _UNASKED.get(key, "not stated") for key, value in measured.items() if value is None},
    }


def other_data(score: Score) -> dict[str, Any]:
    """A score that answers none of the questions, in a line."""
    protocol = score.node.header.protocol
    return {
        "scores": score.node.name,
        "scored": score.scored.name,
        "made_from": score.source.name,
        "split": protocol.get("split"),
        "tags": protocol.get("tag_filter", "unknown"),
        "ignored": protocol.get("predicted_255"),
        "miou": score.facts.get("miou"),
        "oracle": list(score.node.header.oracle),
    }


def threshold_data(run: RunFolder, node: Node) -> dict[str, Any]:
    """A ``thresholds`` artefact: what it holds, what that was fitted on, and who used it."""
    facts = node.header.facts
    names = ("method", "scope", "value", "low", "high", "fitted_on", "miou")
    return {
        "artefact": node.name,
        **{name: facts.get(name) for name in names},
        "split": node.header.protocol.get("split"),
        "used_by": [child.name for child in run.nodes if node in run.parents(child)],
        "oracle": list(node.header.oracle),
    }


def differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """In which the runs were not measured alike.

    Args:
        rows: As ``run_data`` makes them.

    Returns:
        As ``compare_runs`` returns them.
    """
    found = _differing("classes", {row["name"]: {"classes": row["classes"]} for row in rows})
    for key in HEADLINES:
        scores = {
            row["name"]: row["headline_scores"][key] for row in rows if row["headline_scores"][key]["reason"] is None
        }
        stated = {
            name: {k: value for k, value in headline["protocol"].items() if k not in _NOT_PROTOCOL}
            | {"tag_filter": headline["tags"], "images": headline["images"], "oracle": headline["oracle"]}
            for name, headline in scores.items()
        }
        found += _differing(key, stated)
    places = {row["name"]: _places(row["cost"]["stages"]) for row in rows}
    return _merged(found + _differing("cost", places))


def _merged(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same difference of several scores as one."""
    merged: dict[str, dict[str, Any]] = {}
    for difference in found:
        key = json.dumps([difference["key"], difference["values"]], sort_keys=True)
        merged.setdefault(key, {**difference, "what": []})["what"].append(difference["what"])
    return list(merged.values())


def _differing(what: str, stated: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for values in stated.values() for key in values)
    found = []
    for key in keys:
        values = {name: each.get(key) for name, each in stated.items()}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            found.append({"key": key, "values": values, "what": what})
    return found


def _places(stages: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """On what kinds of machine, device and number format the stages ran."""
    seen = {
        name: sorted({str(stage["environment"][name]) for stage in stages if stage["environment"][name] is not None})
        for name in WHERE
    }
    return {name: values for name, values in seen.items() if values}
