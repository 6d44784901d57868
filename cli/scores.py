"""Score tables: what evaluate-masks returns, with what the numbers depend on beside them. All figures in per cent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from pseudolabel.runtime.formatting import part_of_all, percent, short, span

from .tables import console, key_values, make_table

_CLASSES = {
    "IoU": "iou",
    "precision": "precision_by_class",
    "recall": "recall_by_class",
    "FP share": "false_positives",
    "FN share": "false_negatives",
    "boundary IoU": "boundary_iou_by_class",
}
_OVERALL = ("miou", "precision", "recall", "pixel_accuracy", "mean_accuracy", "boundary_iou", "labelled_share")
_STATED = (
    "split",
    "tag_filter",
    "held_to",
    "scales",
    "flip",
    "crf",
    "crf_fitted_on",
    "par",
    "region_vote",
    "external_models",
    "threshold",
    "threshold_fitted_on",
    "trained_on",
    "annotation_hours",
    "predicted_255",
    "oracle",
)


def show_scores(result: Mapping[str, Any]) -> None:
    """Print one result of evaluate-masks: by class, over all classes, and how it was measured."""
    output = console()
    columns = {title: result[key] for title, key in _CLASSES.items() if result.get(key)}
    table = make_table(["class"], columns)
    for label in result["iou"]:
        table.add_row(Text(label), *(percent(values[label]) for values in columns.values()))
    output.print(Text(_headline(result), style="bold"))
    output.print(table)
    output.print(_overall(result))
    if result.get("by_supervision"):
        output.print(_by_supervision(result["by_supervision"]))
    if result.get("worst"):
        output.print(Text("worst: " + ", ".join(f"{item['id']} {percent(item['miou'])}" for item in result["worst"])))
    protocol = dict(result["protocol"])
    if "ids_sha256" in protocol:
        protocol["ids_sha256"] = protocol["ids_sha256"][:12]
    output.print(key_values(protocol, title="how it was measured"))


def show_summary(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """One row for each score of a pipeline, and below it what the score depends on."""
    output = console()
    numbers = ["mIoU", "without tags", "with tags", "95 % interval", "boundary IoU", "labelled", "images"]
    table = make_table(["score"], numbers, title="scores, %")
    for key, result in scores.items():
        sides = [result.get(side) or {} for side in ("unfiltered", "tag_filtered")]
        table.add_row(
            Text(key),
            *(percent(scores.get("miou")) for scores in (result, *sides)),
            span(result.get("interval")),
            *(percent(result.get(name)) for name in ("boundary_iou", "labelled_share")),
            str(result["images"]),
        )
    output.print(table)
    for key, result in scores.items():
        stated = {name: result["protocol"][name] for name in _STATED if name in result["protocol"]}
        words = "; ".join(f"{name.replace('_', ' ')} {short(value)}" for name, value in stated.items())
        output.print(Text(f"{key}: {words}"), soft_wrap=True)


def _overall(result: Mapping[str, Any]) -> Table:
    """HeadlineScores over all classes, without and with the classes that the image tags exclude removed."""
    sides = {"without image tags": result.get("unfiltered"), "with image tags": result.get("tag_filtered")}
    shown = {title: scores for title, scores in sides.items() if scores} or {"": result}
    table = make_table(["all classes"], shown)
    for name in _OVERALL:
        table.add_row(name.replace("_", " "), *(percent(scores.get(name)) for scores in shown.values()))
    table.add_row("95 % interval of miou", *(span(scores.get("interval")) for scores in shown.values()))
    return table


def _by_supervision(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    """mIoU of the images that have the same kinds of labels, and what these cost to draw."""
    columns = ["images", "mIoU", "without tags", "with tags", "s an image"]
    table = make_table(["supervised by"], columns, title="by what supervised each image, %")
    for kind, part in parts.items():
        scores = (percent(part[name]) for name in ("miou", "unfiltered", "tag_filtered"))
        seconds = part["annotation_seconds"]
        table.add_row(Text(kind), str(part["images"]), *scores, "-" if seconds is None else short(seconds))
    return table


def _headline(result: Mapping[str, Any]) -> str:
    images = part_of_all(result["images"], result.get("unscored") or 0)
    return f"mIoU {percent(result['miou'])} %, 95 % interval {span(result.get('interval'))}, {images} images"
