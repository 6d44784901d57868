"""Every format that masks are written in, and those that corrected masks are read from; modules load when used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pseudolabel.interop.incoming import Correction, Parent
from pseudolabel.interop.outgoing import Export

WRITERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "coco": ("coco", "coco.json", {}),
    "coco-polygons": ("coco", "coco.json", {"polygons": True}),
    "yolo": ("yolo", "yolo", {}),
    "cvat": ("cvat", "cvat.zip", {}),
    "label-studio": ("label_studio", "label-studio", {}),
    "labelme": ("labelme", "labelme", {}),
    "hf": ("hf", "hf", {}),
    "mmseg": ("mmseg", "mmseg", {}),
}
"""Module, the file or folder that it writes, and further arguments of its ``write``, by format."""

READERS = ("coco", "cvat", "label-studio", "labelme", "yolo")
"""Formats that are read; the module of the same name has the function ``read``."""

PLACES = tuple(dict.fromkeys(place for _, place, _ in WRITERS.values()))
"""Every file and folder that a writer makes in the folder of an export."""


def writer_of(name: str) -> tuple[Callable[[Path, Export], None], str]:
    """The function that writes a format, and the name of the file or folder that it writes."""
    module, place, settings = WRITERS[name]
    return partial(import_module(f"pseudolabel.interop.{module}").write, **settings), place


def check_format(name: str, classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse what a format cannot hold, before anything is computed.

    Args:
        name: The format.
        classes: Names by class index, background first.
        photographs: Of all images.

    Raises:
        InputError: A class name or a photograph does not suit the format.
        MissingExtraError: A package that writes it is not installed.
    """
    check = getattr(import_module(f"pseudolabel.interop.{WRITERS[name][0]}"), "check", None)
    if check is not None:
        check(classes, photographs)


def reader_of(name: str) -> Callable[[Path, Parent], Iterator[Correction]]:
    """The function that reads a format: path and parent to the corrections in it."""
    module = import_module(f"pseudolabel.interop.{name.replace('-', '_')}")
    read: Callable[[Path, Parent], Iterator[Correction]] = module.read
    return read
