"""New photographs, of which nothing is known but the network that is to label them: a folder, or single files.

An id is the path below the root, without its ending. There are no lists, no tags and no ground truth. Of a folder,
what other commands have written into it is left out, and so are label maps that lie among the photographs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.image_files import NAMES
from pseudolabel.data.layouts.folder_names import label_maps
from pseudolabel.data.lists import index_images, pictures_left_out, unsafe
from pseudolabel.data.names import nfc
from pseudolabel.data.records import Dataset, Record
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.files import absolute, stands, what_stands

NAME = "photographs"
"""What a stored data set of them is called."""

# what is in every folder into which a command of this program writes masks, also before it has ended
_MADE = ("masks.h5", "masks.h5.partial", "soft.h5", "soft.h5.partial", "network.h5", "network.h5.partial")


def find(paths: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Where photographs lie that a user names.

    Args:
        paths: Folders and files.

    Returns:
        Their common folder, absolute; the files below it, with ``/``. None are named where there is one folder: it is
        all that is in it.

    Raises:
        InputError: One of them does not exist, or they have no folder in common.
        DatasetError: A folder holds no photograph.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"--images {path} {what_stands(path)}; pass a folder of photographs, or a file")
    if len(paths) == 1 and paths[0].is_dir():
        return absolute(paths[0]), ()
    files: dict[str, None] = {}  # in order, each once
    for path in paths:
        place = os.path.abspath(path)  # a link keeps its own name  # noqa: PTH100
        inside = [str(found) for found in _below(Path(place), stop)[0].values()] if path.is_dir() else [place]
        files.update(dict.fromkeys(inside))
    try:
        root = Path(os.path.commonpath([os.path.dirname(file) for file in files]))  # noqa: PTH120
    except ValueError as error:
        raise InputError("--images names files of several drives; run the command once for each drive") from error
    return root, tuple(Path(file).relative_to(root).as_posix() for file in files)


def load(root: Path, classes: Sequence[str], files: Sequence[str] = (), fault: Fault = stop) -> Dataset:
    """Open photographs that ``find`` has found.

    Args:
        root: Folder.
        classes: Names of the classes that a network knows, background first.
        files: Below the folder, with ``/``; none: all that are there.
        fault: Told of everything wrong with single files, which are then left out.

    Raises:
        DatasetError: There are no photographs, or ``fault`` raised.
    """
    images, notes = (_named(root, files, fault), ()) if files else _below(root, fault)
    return Dataset(
        NAME,
        root,
        "all",
        tuple(classes),
        tuple(Record(name, path, None) for name, path in images.items()),
        "none",
        _no_truth,
        files=tuple(files),
        notes=notes,
    )


def _below(folder: Path, fault: Fault) -> tuple[dict[str, Path], tuple[str, ...]]:
    """All photographs below a folder by id, and what is easily overlooked."""
    found = index_images(folder, fault)
    made = {place for place in {path.parent for path in found.values()} if _is_output(place, folder)}
    found = {name: path for name, path in found.items() if path.parent not in made}
    labels = set(label_maps(found, ()))
    images = {name: path for name, path in found.items() if name not in labels}
    notes = pictures_left_out(folder, images)
    if not images:
        raise DatasetError("; ".join((f"{folder} holds no photograph; wanted {NAMES} files", *notes)))
    if labels:
        first = found[min(labels)]
        notes += (f"{len(labels)} label maps among the photographs of {folder} are left out (first: {first})",)
    return images, notes


def _is_output(place: Path, folder: Path) -> bool:
    """Whether a folder below another one is, or lies in, one that masks were written into."""
    while place != folder:
        if any((place / name).exists() for name in _MADE):
            return True
        place = place.parent
    return False


def _named(root: Path, files: Sequence[str], fault: Fault) -> Mapping[str, Path]:
    """Files below a folder by id."""
    images: dict[str, Path] = {}
    for file in files:
        name = nfc(file.removesuffix(Path(file).suffix))
        if complaint := unsafe(name):
            fault(f"{root / file!s}: id {name!r} {complaint}")
        elif name in images:
            fault(f"{root / file} and {images[name].name} have the same id {name!r}; keep one of them")
        elif not stands(root / file):
            fault(f"{root / file} does not exist; pass --root with the folder where the photographs are now")
        else:
            images[name] = root / file
    return images


def _no_truth(record: Record) -> NoReturn:
    raise DatasetError(f"{record.image} is a new photograph, of which there is no ground truth")
