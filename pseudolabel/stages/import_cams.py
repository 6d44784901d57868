"""``import-cams``: others' class activation maps in, a ``cams`` artefact out.

Reads IRN-style files: one ``ID.npy`` an image, a pickled dictionary with ``keys`` (object classes from 0) and
``high_res`` or ``cam`` (P, H, W). Unpickling is restricted to NumPy arrays, plain numbers, strings, lists and
dictionaries, so that a file cannot run code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts import Images, MapsWriter, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, Record, image_size, open_dataset
from pseudolabel.data.inputs import npy_input
from pseudolabel.data.names import file_named
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import ImportCamsOptions
from pseudolabel.runtime.progress import Progress

_ROUNDING = 1e-3  # by which values may leave [0, 1]
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # how Python 2 and protocol 2 pickles carry an array's bytes
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds arrays and plain containers and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only NumPy arrays are unpickled")
        return super().find_class(module, name)


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
    sizes = np.asarray([image_size(record.image) for record in dataset.records], dtype=np.int32).reshape(-1, 2)
    images = Images(tuple(record.id for record in dataset.records), sizes[:, 0], sizes[:, 1])
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
                    size = int(sizes[index, 0]), int(sizes[index, 1])
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
    maps, keys = np.asarray(found[options.array], dtype=np.float32), np.asarray(found[options.keys]).ravel()
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
    classes = len(dataset.classes) - 1
    if any(not 0 <= int(key) < classes for key in keys):
        raise DatasetError(f"{path}: keys {keys.tolist()} are not within 0 to {classes - 1}, the object classes from 0")
    return {int(key) + 1: reduced(np.clip(array, 0, 1), options.grid) for key, array in zip(keys, maps, strict=True)}


def fits(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether a grid covers a photograph with square cells, but for a cell too many or too few at a side.

    Args:
        shape: Height and width of the grid, cells.
        size: Of the photograph, pixels.
    """
    (high, wide), (tall, broad) = shape, size  # some number of cells a pixel must suit both sides
    return max((high - 1) / tall, (wide - 1) / broad) <= min((high + 1) / tall, (wide + 1) / broad)


def read_arrays(path: Path) -> dict[str, Any]:
    """The dictionary in an ``.npy`` file, unpickled without running any code of the file.

    Raises:
        DatasetError: No such file, not an .npy file, or it pickles something other than arrays.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; one .npy file is wanted for every image of the split")
    try:
        with path.open("rb") as handle:
            version = np.lib.format.read_magic(handle)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = readers[version](handle)
            if dtype.kind != "O" or shape != ():
                raise DatasetError(f"{path} holds an array {shape} of {dtype}, not a dictionary of arrays")
            array = _ArraysOnly(handle).load()
    except (ValueError, KeyError, EOFError, pickle.UnpicklingError, AttributeError, IndexError, TypeError) as error:
        raise DatasetError(f"{path} is not an .npy dictionary of arrays: {error}") from error
    found = array.item() if isinstance(array, np.ndarray) and array.shape == () else array
    if not isinstance(found, dict):
        raise DatasetError(f"{path} holds a {type(found).__name__}, not a dictionary of arrays")
    return found


def reduced(array: np.ndarray, long_side: int | None) -> np.ndarray:
    """A map (H, W) averaged down so that its long side is at most ``long_side``; float32."""
    height, width = array.shape
    if long_side is None or max(height, width) <= long_side:
        return np.asarray(array, dtype=np.float32)
    scale = long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(array, dtype=np.float32)).resize(size, Image.Resampling.BOX))
