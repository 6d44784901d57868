"""YOLO's segmentation labels, as Ultralytics reads them: one polygon a line, in shares of the image's sides.

One line a connected region: its polygon through the centres of its boundary pixels, holes joined by a seam. A quarter
of a pixel is added before the division, so that readers that round and those that cut off find the same pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.lists import files_below
from pseudolabel.errors import DatasetError
from pseudolabel.interop.contours import centre_polygons, draw_polygon
from pseudolabel.interop.extra import require
from pseudolabel.interop.incoming import Correction, Parent, as_runs, draw_shapes
from pseudolabel.interop.outgoing import Export, Outgoing, copy_photograph, read_regions
from pseudolabel.runtime.files import read_regular

_SHIFT = 0.25  # pixels
_DIGITS = 7
_TABLE = "data.yaml"


def check(classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse to begin without the package that writes the format.

    Raises:
        MissingExtraError: It is not installed.
    """
    require("supervision.dataset.utils", "supervision", "--as yolo")


def write(folder: Path, export: Export) -> None:
    """Write photographs, labels and ``data.yaml``; classes are numbered from 0, without the background.

    Args:
        folder: To be made.
        export: The masks. An image without an object has an empty file.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for _ in export.each(partial(place_files, folder=folder, split=export.split)):
            pass
        place = f"images/{export.split}"
        about = {"path": ".", "train": place, "val": place, "names": dict(enumerate(export.classes[1:]))}
        with replacing(folder / _TABLE) as file:
            file.write(b"# val is the same images as train: name others to validate on\n")
            file.write(yaml.safe_dump(about, allow_unicode=True, sort_keys=False).encode())


def place_files(image: Outgoing, *, folder: Path, split: str) -> None:
    """Copy one photograph and write its labels; runs in a worker process."""
    copy_photograph(image, folder / "images" / split / image.file_name)
    path = folder / "labels" / split / f"{image.id}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for label, inside in read_regions(image, instances=False):
            for points in centre_polygons(inside, "--as yolo"):
                shares = (points + _SHIFT) / (image.size[1], image.size[0])
                numbers = " ".join(f"{share:.{_DIGITS}f}" for share in shares.ravel())
                file.write(f"{label - 1} {numbers}\n".encode())


def read(path: Path, parent: Parent) -> Iterator[Correction]:
    """The labels below a folder with ``data.yaml``: an empty file is an image without objects, no file a mask kept.

    Args:
        path: The folder.
        parent: The masks that were corrected.

    Raises:
        DatasetError: A file is not what it should be, or of other images or classes.
    """
    names = _read_names(path)
    labels = path / "labels"
    for name, file in files_below(labels if labels.is_dir() else path, (".txt",)):
        if name in ("classes", "train", "val", "test"):
            continue
        inner = name.partition("/")[2]
        image = inner if inner in parent.sizes else parent.find(name + ".txt", path)
        yield Correction(image, partial(_draw, file, names, parent, parent.sizes[image]))


def _read_names(folder: Path) -> dict[int, str]:
    """Class name by number."""
    table = folder / _TABLE
    if not table.is_file():
        raise DatasetError(f"{folder} holds no {_TABLE}; pass the folder that holds it and the labels")
    try:
        content = yaml.safe_load(read_regular(table))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise DatasetError(f"{table} cannot be read as YAML ({said}); export the data set anew") from error
    names = content.get("names") if isinstance(content, dict) else None
    rows = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(rows, dict) or not all(isinstance(key, int) for key in rows):
        raise DatasetError(f"{table} has no list of names; wanted names: [NAME, ...] or a name for each number")
    return {number: str(name) for number, name in rows.items()}


def _draw(file: Path, names: dict[int, str], parent: Parent, size: tuple[int, int]) -> np.ndarray:
    shapes = []
    for number, line in enumerate(read_regular(file).decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{file}: line {number}"
        label, points = _read_line(words, where)
        if label not in names:
            raise DatasetError(f"{where} has class {label}, which {_TABLE} does not name; name it there")
        inside = draw_polygon(points * (size[1], size[0]) - _SHIFT, size)
        shapes.append((parent.label(names[label], file), as_runs(inside)))
    return draw_shapes(shapes, size)


def _read_line(words: Sequence[str], where: str) -> tuple[int, np.ndarray]:
    """Class number, and points (n, 2) in shares of the sides."""
    try:
        label, numbers = int(words[0]), np.array(words[1:], dtype=np.float64)
    except ValueError:
        label, numbers = -1, np.zeros(0)
    if len(numbers) == 4:
        raise DatasetError(f"{where} is a box, of which no mask can be made; export polygons, or remove it")
    if label < 0 or len(numbers) < 6 or len(numbers) % 2 or not ((numbers >= -1) & (numbers <= 2)).all():
        raise DatasetError(f"{where} is no polygon; wanted a class number and x y x y ... in shares of the sides")
    return label, numbers.reshape(-1, 2)
