"""Regions that other programs have made of an image: binary PNGs, COCO run lengths in JSON, or a label map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts.run_lengths import Regions, label_runs, make_regions, mask_runs
from pseudolabel.artefacts.schema import MOST_REGIONS
from pseudolabel.data.image_files import opened
from pseudolabel.data.json_files import read_json
from pseudolabel.data.names import file_named, nfc
from pseudolabel.data.pickled_arrays import read_array
from pseudolabel.errors import DatasetError
from pseudolabel.options.fields import nearest
from pseudolabel.runtime.files import stands

_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # of PNGs with one number a pixel
_SAM = "wanted SAM's list of objects with 'segmentation'"


def read_regions(
    folder: Path, name: str, size: tuple[int, int], classes: Sequence[str], uncovered: int | None
) -> Regions:
    """The regions of one image.

    Args:
        folder: Where they lie: in the folder ``name``, or in ``name.json``, ``name.npy`` or ``name.png``.
        name: Of the image.
        size: Its height and width, pixels.
        classes: Class names, background first.
        uncovered: Value of label maps that is no region; None: negative ones in .npy, 0 in PNG.

    Raises:
        DatasetError: In one line that names the file and what is wrong with it.
    """
    places = [file_named(folder, f"{name}{ending}") for ending in ("", ".json", ".npy", ".png")]
    found = [path for path in places if stands(path)]
    if not found:
        raise DatasetError(
            f"{folder} has no regions of image {name!r}; wanted a folder {name} of binary PNGs, or {name}.json, "
            f"{name}.npy or {name}.png"
        )
    if len(found) > 1:
        raise DatasetError(f"{found[0]} and {found[1]} are both regions of image {name!r}; keep one of them")
    (path,) = found
    if path.suffix == ".json" and path == places[1]:
        return _from_json(path, size, classes)
    if path == places[0]:
        return _from_folder(path, size)
    values = read_array(path) if path == places[2] else _png_values(path)
    return _from_label_map(path, values, size, uncovered, signed=path == places[2])


def _from_folder(folder: Path, size: tuple[int, int]) -> Regions:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder of binary PNGs")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and path.name[0] != ".")
    _require_number(folder, len(paths))
    runs = []
    for path in paths:
        values = _png_values(path)
        _require_size(path, values.shape, size)
        present = np.unique(values)
        if len(present) > 2 or (len(present) == 2 and present[0] != 0):
            raise DatasetError(f"{path} holds {len(present)} values; wanted a binary mask: 0 outside, one value inside")
        if not present[-1]:
            raise DatasetError(f"{path} is an empty region: no pixel is inside; remove it")
        runs.append(mask_runs(values > 0))
    return make_regions(size, runs)


def _from_label_map(
    path: Path, values: np.ndarray, size: tuple[int, int], uncovered: int | None, *, signed: bool
) -> Regions:
    if values.dtype.kind not in "iu":
        raise DatasetError(f"{path} holds {values.dtype}; wanted a label map of integers")
    _require_size(path, values.shape, size)
    present = [int(value) for value in np.unique(values)]
    if uncovered is None:
        present = [value for value in present if (value >= 0 if signed else value != 0)]
    else:
        present = [value for value in present if value != uncovered]
    _require_number(path, len(present))
    return make_regions(size, label_runs(values.astype(np.int64), present))


def _from_json(path: Path, size: tuple[int, int], classes: Sequence[str]) -> Regions:
    content = read_json(path)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DatasetError(f"{path} holds a JSON {type(content).__name__} without 'annotations'; {_SAM}")
    _require_number(path, len(rows))
    runs, score, label, box, prompt = [], list[float | None](), list[int | None](), list[Any](), list[str]()
    for place, row in enumerate(rows):
        where = f"{path}: entry {place}"
        if not isinstance(row, dict):
            raise DatasetError(f"{where} is no JSON object; {_SAM}")
        runs.append(coco_runs(row.get("segmentation"), size, where))
        score.append(_score(row, where))
        label.append(_class_index(row.get("class"), classes, where))
        box.append(_box(row.get("prompt_box"), where))
        prompt.append(_prompt(row, where))
    return make_regions(size, runs, score=score, label=label, box=box, prompt=prompt)


def coco_runs(segmentation: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """The run lengths of a COCO segmentation, compressed or not, without empty runs but a first one: uint32.

    Args:
        segmentation: What the JSON holds: an object with ``size`` and ``counts``.
        size: Height and width of the image.
        where: File and entry, to begin an error with.

    Raises:
        DatasetError: It is none, of another size, does not fill the image, or has no pixel inside.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise DatasetError(
            f"{where}: its segmentation has no 'size' and 'counts'; wanted COCO run lengths (of SAM's "
            "amg.py, --convert-to-rle)"
        )
    found = segmentation["size"]
    if not isinstance(found, list) or len(found) != 2 or not all(type(side) is int for side in found):
        raise DatasetError(f"{where}: its size is no list of height and width")
    _require_size(where, tuple(found), size)
    counts = segmentation["counts"]
    numbers = list(_decompressed(counts)) if isinstance(counts, str) else counts
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise DatasetError(f"{where}: its counts are no run lengths of COCO")
    if sum(numbers) != size[0] * size[1]:
        raise DatasetError(
            f"{where}: its run lengths do not fill the image: {sum(numbers)} of {size[0] * size[1]} pixels"
        )
    if not any(numbers[1::2]):
        raise DatasetError(f"{where} is an empty region: no pixel is inside; remove it")
    if all(numbers[1:]):
        return np.asarray(numbers, dtype=np.uint32)
    flat = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
    return mask_runs(flat.reshape(size[1], size[0]).T)


def _decompressed(text: str) -> Iterator[int]:
    """COCO's compressed counts: 5 bits a character, a sixth that more follow; from the fourth on less that two before.

    What is no such text ends with -1.
    """
    found: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            yield -1
            return
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            found.append(value + (found[-2] if len(found) > 2 else 0))
            yield found[-1]
            value = shift = 0
    if shift:
        yield -1


def _score(row: Mapping[str, Any], where: str) -> float | None:
    value = row.get("score", row.get("predicted_iou"))
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise DatasetError(f"{where} has score {value!r:.40}; wanted a number from 0")
    return float(value)


def _class_index(name: Any, classes: Sequence[str], where: str) -> int | None:
    if name is None:
        return None
    known = classes[1:]
    if not isinstance(name, str) or nfc(name) not in known:
        hint = nearest(str(name), list(known))
        raise DatasetError(f"{where} has class {name!r:.40}, which is none of the {len(known)} object classes{hint}")
    return list(classes).index(nfc(name))


def _box(edges: Any, where: str) -> tuple[float, ...] | None:
    if edges is None:
        return None
    wrong = not isinstance(edges, list) or len(edges) != 4
    if wrong or any(type(edge) not in (int, float) or not math.isfinite(edge) for edge in edges) or min(edges[2:]) <= 0:
        raise DatasetError(f"{where} has prompt_box {edges!r:.40}; wanted left, top, width and height in pixels")
    left, top, width, height = edges
    return left, top, left + width, top + height


def _prompt(row: Mapping[str, Any], where: str) -> str:
    words = row.get("prompt")
    if words is not None and not isinstance(words, str):
        raise DatasetError(f"{where} has prompt {words!r:.40}; wanted words")
    points = row.get("point_coords")
    if words is None and isinstance(points, list) and points and isinstance(points[0], list):
        return "point " + " ".join(f"{value:g}" for value in points[0] if type(value) in (int, float))
    return words or ""


def _png_values(path: Path) -> np.ndarray:
    """The stored values of a PNG with one number a pixel."""
    with opened(path, ("PNG",), []) as image:
        if image.mode not in _MODES:
            raise DatasetError(f"{path} is a picture of Pillow's mode {image.mode!r}; wanted one number a pixel")
        values = np.array(image)
    return values.astype(np.int64) if values.dtype.kind == "b" else values


def _require_size(where: Path | str, found: tuple[int, ...], size: tuple[int, int]) -> None:
    if found != size:
        spoken = " x ".join(map(str, found))
        turned = " (they look transposed)" if found == size[::-1] else ""
        raise DatasetError(f"{where} is {spoken} pixels high and wide, its image {size[0]} x {size[1]}{turned}")


def _require_number(path: Path, found: int) -> None:
    if found > MOST_REGIONS:
        raise DatasetError(f"{path} holds {found} regions; wanted at most {MOST_REGIONS}: keep the best ones")
