"""What ``data check`` has seen, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from .tables import console, key_values, make_table

_TABLED = ("images_of", "masks_of", "mask_values", "left_out")
_SPECIAL = {"ignored": "(ignored)", None: "(no class)"}


def show_check(result: Mapping[str, Any]) -> None:
    """Print the counts: of the data set, by class, and of label files that are not used."""
    output = console()
    overall = {name: value for name, value in result.items() if name not in _TABLED}
    output.print(key_values(overall | {"problems": len(result["problems"])}, title="data check"))
    if result.get("images_of") or result.get("mask_values"):
        _show_classes(result)
    if result.get("left_out"):
        table = make_table(["labels", "not used"], ["files"])
        for kind, reasons in result["left_out"].items():
            for reason, count in reasons.items():
                table.add_row(kind, reason, str(count))
        output.print(table)


def _show_classes(result: Mapping[str, Any]) -> None:
    """One row a class, then one for each value of the masks that is none; values where they are no indices."""
    values: dict[str | None, list[str]] = {}
    for value, found in result["mask_values"].items():
        values.setdefault(found["means"], []).append(value)
    names = ["background", *result["images_of"]]
    mapped = any(values.get(name, [str(index)]) != [str(index)] for index, name in enumerate(names))
    table = make_table(["class"], ["index", *["value in masks"] * mapped, "images in tags", "images in masks"])
    for index, name in enumerate(names[not values :], start=not values):
        stored = [", ".join(values.get(name, ())) or "-"] * mapped
        counts = [str(result[key].get(name, "-")) for key in ("images_of", "masks_of")]
        table.add_row(Text(name), str(index), *stored, *counts)
    for means, title in _SPECIAL.items():
        for value in values.get(means, ()):
            stored = ["-", value] if mapped else [value]
            table.add_row(title, *stored, "-", str(result["mask_values"][value]["images"]))
    console().print(table)
