"""``import-cams``: others' class activation maps in, a ``cams`` artefact out.

Reads IRN-style files: one ``ID.npy`` an image, a pickled dictionary with ``keys`` (object classes from 0) and
``high_res`` or ``cam`` (P, H, W). Nothing is unpickled: ``pickled_arrays`` reads them, so that a file cannot run code.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts import MapsWriter, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, open_dataset
from pseudolabel.data.inputs import images_of, npy_input
from pseudolabel.data.names import file_named
from pseudolabel.data.pickled_arrays import read_arrays
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import ImportCamsOptions
from pseudolabel.runtime.formatting import short
from pseudolabel.runtime.progress import Progress

_ROUNDING = 1e-3  # by which values may leave [0, 1]


def import_cams(options: ImportCamsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Read a folder of .npy dictionaries for the images of a split.

    Args:
        options: Folder, keys, data set.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``maps``, ``skipped``.

    Raises:
        InputError: The folder does not exist.
        DatasetError: A file is missing or does not hold such a dictionary (unless ``on_error`` is ``skip``).
    """
    if not options.cams.is_dir():
        raise InputError(f"{options.cams} is not a folder of ID.npy files")
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    images = images_of(dataset)
    sizes = images.sizes()
    header = child_header(
        "cams",
        "import-cams",
        options,
        {},
        inputs=(dataset.as_input(), npy_input(options.cams)),
        protocol={"split": dataset.split, "tag_filter": "as imported", "head": "imported"},
        classes=dataset.classes,
        dataset=dataset.spec(),
    )
    written = 0
    with MapsWriter(
        options.out, header, images, dtype="float16", cost=CostMeter(), overwrite=options.overwrite
    ) as writer:
        with progress.track(len(images.ids), "images", done=writer.done) as advance:
            for index in range(writer.done, len(images.ids)):
                try:
                    size = sizes[images.ids[index]]
                    maps = read_cam_file(options.cams, dataset.records[index], size, dataset, options)
                except DatasetError as error:
                    if options.on_error == "stop":
                        raise
                    writer.skip(index, str(error))
                else:
                    writer.add(index, maps)
                    written += len(maps)
                advance(1)
        skipped = len(writer.skipped)
    return {"out": str(options.out), "images": len(images.ids) - skipped, "maps": written, "skipped": skipped}


def read_cam_file(
    folder: Path, record: Record, size: tuple[int, int], dataset: Dataset, options: ImportCamsOptions
) -> dict[int, np.ndarray]:
    """The maps of one image.

    Args:
        folder: Where they lie.
        record: The image.
        size: Its height and width, pixels.
        dataset: Its data set.
        options: Which entries of the dictionaries to read, and how large the maps may stay.

    Returns:
        Class index from 1 to float32 (h, w) in [0, 1], reduced to ``grid``.

    Raises:
        DatasetError: In one line that names the file and what is wrong with it.
    """
    path = file_named(folder, f"{record.id}.npy")
    found = read_arrays(path)
    absent = [key for key in (options.array, options.keys) if key not in found]
    if absent:
        raise DatasetError(
            f"{path} has no entry {absent[0]!r}, only {', '.join(map(repr, found))}; pass --array and --keys"
        )
    keys = _class_numbers(path, options.keys, found[options.keys], len(dataset.classes) - 1)
    maps = _stacked(path, options.array, found[options.array])
    if maps.ndim != 3 or len(maps) != len(keys) or not np.isfinite(maps).all():
        raise DatasetError(
            f"{path}: {options.array!r} has shape {maps.shape} for {len(keys)} keys; wanted finite (P, H, W)"
        )
    if not fits(maps.shape[1:], size):
        turned = " (they look transposed)" if fits(maps.shape[:0:-1], size) else ""
        raise DatasetError(
            f"{path}: maps {maps.shape[1]} high and {maps.shape[2]} wide are not of the shape of {record.image}, which "
            f"is {size[0]} high and {size[1]} wide{turned}; wanted maps of the whole photograph, (P, H, W)"
        )
    outside = int(((maps < -_ROUNDING) | (maps > 1 + _ROUNDING)).sum())
    if outside:
        raise DatasetError(
            f"{path}: {outside} of {maps.size} values of {options.array!r} are outside [0, 1] (they go from "
            f"{maps.min():.4g} to {maps.max():.4g}); normalise the maps first: logits by a sigmoid, CAMs by setting "
            "negative values to 0 and dividing each map by its largest"
        )
    return {key + 1: reduced(np.clip(array, 0, 1), options.grid) for key, array in zip(keys, maps, strict=True)}


def fits(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether a grid covers a photograph with square cells, but for a cell too many or too few at a side.

    Args:
        shape: Height and width of the grid, cells.
        size: Of the photograph, pixels.
    """
    (high, wide), (tall, broad) = shape, size  # some number of cells a pixel must suit both sides
    return max((high - 1) / tall, (wide - 1) / broad) <= min((high + 1) / tall, (wide + 1) / broad)


def _stacked(path: Path, name: str, found: Any) -> np.ndarray:
    """An entry as float32 maps (P, H, W)."""
    try:
        maps = np.asarray(found, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: {name!r} holds no maps of one size; wanted finite (P, H, W)") from error
    return maps


def _class_numbers(path: Path, name: str, found: Any, classes: int) -> list[int]:
    """An entry as object classes from 0, each at most once."""
    items = found.ravel().tolist() if isinstance(found, np.ndarray) else found if isinstance(found, list) else [found]
    items = [item.item() if isinstance(item, np.ndarray) and item.size == 1 else item for item in items]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | float) or item != item or item % 1:
            raise DatasetError(
                f"{path}: {name!r} holds {short(item)}, which is no class number; wanted integers from 0"
            )
    if any(not 0 <= item < classes for item in items):
        raise DatasetError(f"{path}: keys {items[:8]} are not within 0 to {classes - 1}, the object classes from 0")
    if len(set(items)) < len(items):
        twice = Counter(items).most_common(1)[0][0]
        raise DatasetError(f"{path}: {name!r} holds class {int(twice)} twice; wanted each class of the image once")
    return [int(item) for item in items]


def reduced(array: np.ndarray, long_side: int | None) -> np.ndarray:
    """A map (H, W) averaged down so that its long side is at most ``long_side``; float32."""
    height, width = array.shape
    if long_side is None or max(height, width) <= long_side:
        return np.asarray(array, dtype=np.float32)
    scale = long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(array, dtype=np.float32)).resize(size, Image.Resampling.BOX))
