"""Whether the datasets of an open file are what its kind's table in ``schema`` says: sizes first, then values."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from pseudolabel.artefacts.schema import CLASSES, KINDS, MOST_CLASSES, MOST_PIXELS, MOST_REGIONS, UNIQUE, Array
from pseudolabel.errors import ArtefactError

_ROWS = 1 << 14  # read at a time
_LARGEST_CHUNK = 1 << 27  # bytes that HDF5 allocates at once
_LARGE = 1 << 26  # bytes, from which on a dataset that is read as a whole must be worth its size
_GZIP = 1100  # a byte of gzip becomes at most 1,032
_PLAUSIBLE = 200  # what the data of artefacts shrink to at most, where there are many of them
_COUNTED = {"K": "maps", "N": "images", "R": "regions", "C": "classes"}
_LOOSE = 2.0  # cells by which a map may miss the photograph's shape: networks round sizes to their stride


class MisfitError(Exception):
    """What is wrong with a dataset, without the file's name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name!r} {text}")


def check_classes(path: Path, file: h5py.File) -> tuple[str, ...]:
    """The class names, which every artefact has.

    Raises:
        ArtefactError: They are not what they should be.
    """
    try:
        dataset = file[CLASSES.name]
        _check_form(CLASSES, CLASSES.name, dataset)
        _check_declared(CLASSES, CLASSES.name, dataset, path.stat().st_size)
        _check_values(CLASSES, CLASSES.name, dataset)
        if not 1 <= len(dataset) <= MOST_CLASSES:
            raise MisfitError(CLASSES.name, f"has {len(dataset)} names, wanted 1 to {MOST_CLASSES}")
        names = tuple(dataset.asstr()[:].tolist())
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise MisfitError(CLASSES.name, f"has {twice!r} twice")
        if "" in names:
            raise MisfitError(CLASSES.name, "has an empty name")
    except MisfitError as misfit:
        raise ArtefactError(f"{path}: {misfit}; make it again") from misfit
    return names


def check_arrays(path: Path, file: h5py.File, kind: str, classes: int, ignore: int, stage: str) -> None:
    """Check all datasets that a kind has.

    Args:
        path: For the message, and for the size that bounds what it may declare.
        file: Whose links, storage and class names are checked already.
        kind: A key of ``KINDS``.
        classes: Their number, with background.
        ignore: The label that is no class.
        stage: That made it.

    Raises:
        ArtefactError: One is not what it should be; the message names file and key.
    """
    try:
        size, lengths = path.stat().st_size, {"C": classes - 1}
        for array in KINDS[kind]:
            for name, dataset in _matching(file, array):
                _check_form(array, name, dataset)
                _check_lengths(array, name, dataset, lengths)
                _check_declared(array, name, dataset, size)
                if not array.lazy:
                    _check_values(array, name, dataset)
        for name in UNIQUE:
            if name in file and any(array.name == name for array in KINDS[kind]):
                _check_ids(name, file[name])
        if "maps/values" in file and kind in ("cams", "soft-labels", "masks"):
            _check_maps(file, kind, classes, ignore, stage)
        if kind == "regions":
            _check_regions(file, classes, ignore)
        if kind == "thresholds":
            _check_thresholds(file)
    except MisfitError as misfit:
        raise ArtefactError(f"{path}: {misfit}; make it again") from misfit


def _matching(file: h5py.File, array: Array) -> Iterator[tuple[str, h5py.Dataset]]:
    if not array.name.endswith("/*"):
        if array.name in file:
            yield array.name, file[array.name]
        return
    group = array.name.removesuffix("/*")
    if group not in file:
        return
    if not isinstance(file[group], h5py.Group):
        raise MisfitError(group, "is a dataset, wanted a group of them")
    found: list[tuple[str, h5py.Dataset]] = []
    file[group].visititems(
        lambda name, item: found.append((f"{group}/{name}", item)) if isinstance(item, h5py.Dataset) else None
    )
    yield from found


def _check_form(array: Array, name: str, dataset: h5py.Dataset) -> None:
    """Type and rank."""
    if not isinstance(dataset, h5py.Dataset):
        raise MisfitError(name, "is a group, wanted a dataset")
    if not any(_is_of(dataset.dtype, wanted) for wanted in array.types):
        raise MisfitError(name, f"holds {_spoken(dataset.dtype)}, wanted {' or '.join(map(_plural, array.types))}")
    if array.shape is not None and len(dataset.shape) != len(array.shape):
        wanted = ("one value", "one dimension", "two dimensions")[len(array.shape)]
        raise MisfitError(name, f"has shape {dataset.shape}, wanted {wanted}")


def _is_of(dtype: np.dtype, wanted: str) -> bool:
    if wanted == "string":
        found = h5py.check_string_dtype(dtype)
        return found is not None and found.length is not None
    kinds = {"integer": "iu", "float": "f", "number": "biuf"}
    return dtype.kind in kinds[wanted] if wanted in kinds else dtype == np.dtype(wanted)


def _spoken(dtype: np.dtype) -> str:
    return "strings of variable length" if h5py.check_vlen_dtype(dtype) or dtype.kind == "O" else str(dtype)


def _plural(kind: str) -> str:
    return {"string": "strings", "integer": "integers", "float": "floats", "number": "numbers"}.get(kind, kind)


def _check_lengths(array: Array, name: str, dataset: h5py.Dataset, lengths: dict[str, int]) -> None:
    for found, wanted in zip(dataset.shape, array.shape or (), strict=False):
        letter, _, more = str(wanted).partition(" + ")
        if letter == "any":
            continue
        extra = int(more or 0)
        known = int(letter) if letter.isdecimal() else lengths.setdefault(letter, found - extra)
        if found != known + extra or known < 0:
            about = f" for {known + (letter == 'C')} {_COUNTED[letter]}" if letter in _COUNTED else ""
            raise MisfitError(name, f"has {found} entries{about}, wanted {max(known, 0) + extra}")


def _check_declared(array: Array, name: str, dataset: h5py.Dataset, size: int) -> None:
    """What a dataset declares must be there: a small file cannot fill the memory."""
    declared, stored = int(dataset.nbytes), int(dataset.id.get_storage_size())
    if declared == 0:
        return
    if stored > size:
        raise MisfitError(name, f"declares {stored} bytes in a file of {size}")
    if dataset.chunks is None:
        if stored != declared:
            raise MisfitError(name, f"declares {declared} bytes but {stored} are stored")
        return
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    chunks = math.prod(-(-whole // part) for whole, part in zip(dataset.shape, dataset.chunks, strict=True))
    if chunk > _LARGEST_CHUNK and chunk > declared:
        raise MisfitError(name, f"has chunks of {chunk} bytes, wanted at most {_LARGEST_CHUNK}")
    if chunks > stored or dataset.id.get_num_chunks() != chunks:
        raise MisfitError(name, f"declares {chunks} chunks but {min(dataset.id.get_num_chunks(), stored)} are stored")
    most = stored * (_GZIP if dataset.compression else 1)
    if declared > most + chunk or (not array.lazy and declared > _LARGE and declared > _PLAUSIBLE * stored):
        raise MisfitError(name, f"declares {declared} bytes, which {stored} stored ones cannot hold")


def _check_values(array: Array, name: str, dataset: h5py.Dataset) -> None:
    if dataset.dtype.kind == "S" and name not in UNIQUE:
        for start in range(0, len(dataset), _ROWS):
            _texts(name, dataset, start)
    if dataset.dtype.kind not in "iuf" or dataset.size == 0:
        return
    for values in _blocks(dataset):
        if dataset.dtype.kind == "f":
            if not array.nan and np.isnan(values).any():
                raise MisfitError(name, "holds NaN")
            if np.isinf(values).any():
                raise MisfitError(name, "holds infinity")
        for bound, wrong in ((array.low, np.less), (array.high, np.greater)):
            if bound is not None and (found := values[wrong(values, bound)]).size:
                raise MisfitError(name, f"holds {found.ravel()[0]}, wanted {_range(array)}")


def _range(array: Array) -> str:
    return f"at least {array.low:g}" if array.high is None else f"{array.low:g} to {array.high:g}"


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    if dataset.shape == ():
        yield np.asarray(dataset[()])
        return
    for start in range(0, len(dataset), _ROWS):
        yield dataset[start : start + _ROWS]


def _texts(name: str, dataset: h5py.Dataset, start: int) -> list[str]:
    try:
        return list(dataset.asstr()[start : start + _ROWS])
    except UnicodeDecodeError as error:
        raise MisfitError(name, "holds text that is not in the encoding it states") from error


def _check_ids(name: str, dataset: h5py.Dataset) -> None:
    hashes = np.zeros(len(dataset), np.int64)
    for start in range(0, len(dataset), _ROWS):
        for index, text in enumerate(_texts(name, dataset, start), start):
            if not text or text[0] == "/" or "\0" in text or (".." in text and ".." in text.split("/")):
                raise MisfitError(name, f"has {text!r}, which is no name of an image in a folder")
            hashes[index] = hash(text.casefold() if text.isascii() else folded(text))
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(same):
        first, second = (dataset.asstr()[int(order[same[0] + more])] for more in (0, 1))
        raise MisfitError(
            name, f"has {first!r} twice" if first == second else f"has {first!r} and {second!r}, which are alike"
        )


def folded(text: str) -> str:
    """The text without regard to case and to how letters are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _check_maps(file: h5py.File, kind: str, classes: int, ignore: int, stage: str) -> None:
    group = file["maps"]
    offset, image, height, width = (group[name][:].astype(np.int64) for name in ("offset", "image", "height", "width"))
    count = len(file["images/id"])
    _check_offsets(offset, height, width, int(file["maps/values"].shape[0]))
    if (wrong := np.flatnonzero(image >= count)).size:
        raise MisfitError("maps/image", f"holds {image[wrong[0]]} for {count} images")
    if kind == "masks":
        if (wrong := np.flatnonzero(np.bincount(image, minlength=count) > 1)).size:
            raise MisfitError("maps/image", f"has image {wrong[0]} twice; masks have one map an image")
    else:
        _check_map_classes(kind, image, group["class"][:].astype(np.int64), classes, ignore)
    _check_sizes(file, kind, image, height, width, stage)


def _check_offsets(offset: np.ndarray, height: np.ndarray, width: np.ndarray, values: int) -> None:
    if offset[0] != 0 or (np.diff(offset) < 0).any():
        raise MisfitError("maps/offset", "does not ascend from 0")
    if offset[-1] != values:
        raise MisfitError("maps/values", f"has {values} values, 'maps/offset' says {offset[-1]}")
    if (wrong := np.flatnonzero(np.diff(offset) != height * width)).size:
        row = int(wrong[0])
        found = f"gives map {row} {offset[row + 1] - offset[row]} values but it is {height[row]} x {width[row]}"
        raise MisfitError("maps/offset", found)


def _check_map_classes(kind: str, image: np.ndarray, label: np.ndarray, classes: int, ignore: int) -> None:
    known = (label < classes) & (label >= (1 if kind == "cams" else 0))
    if kind == "soft-labels":
        known |= label == ignore
    if (wrong := np.flatnonzero(~known)).size:
        raise MisfitError("maps/class", f"holds {label[wrong[0]]} for {classes} classes")
    pairs = np.sort(image * 256 + label)
    if (twice := np.flatnonzero(np.diff(pairs) == 0)).size:
        raise MisfitError("maps/class", "has class {1} twice for image {0}".format(*divmod(int(pairs[twice[0]]), 256)))


def _check_sizes(
    file: h5py.File, kind: str, image: np.ndarray, height: np.ndarray, width: np.ndarray, stage: str
) -> None:
    """Sizes of images and of maps against each other."""
    tall, wide = (sides[image] for sides in _check_image_sizes(file))
    if kind == "masks":
        fits = (tall == height) & (wide == width)
    elif stage == "import-cams":  # other programs show a network squares of any photograph
        fits = (tall > 0) & (wide > 0)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = ((height - _LOOSE) / tall <= (width + _LOOSE) / wide) & (tall > 0) & (wide > 0)
            fits &= (width - _LOOSE) / wide <= (height + _LOOSE) / tall
    if (wrong := np.flatnonzero(~fits)).size:
        row = int(wrong[0])
        size = f"{height[row]} x {width[row]}, its image {tall[row]} x {wide[row]}"
        raise MisfitError("maps/height", f"does not fit 'images/height': map {row} is {size}")


def _check_regions(file: h5py.File, classes: int, ignore: int) -> None:
    """All but the run lengths themselves, which are checked where they are read."""
    _check_image_sizes(file)
    image, offset = (file[name][:].astype(np.int64) for name in ("regions/image", "runs/offset"))
    count = len(file["images/id"])
    if (np.diff(image) < 0).any():
        raise MisfitError("regions/image", "does not ascend")
    if (wrong := np.flatnonzero(image >= count)).size:
        raise MisfitError("regions/image", f"holds {image[wrong[0]]} for {count} images")
    if (wrong := np.flatnonzero(np.bincount(image, minlength=count) > MOST_REGIONS)).size:
        raise MisfitError("regions/image", f"has more than {MOST_REGIONS} regions for image {wrong[0]}")
    runs = int(file["runs/length"].shape[0])
    if offset[0] != 0 or offset[-1] != runs:
        raise MisfitError("runs/offset", f"does not go from 0 to the {runs} values of 'runs/length'")
    if (wrong := np.flatnonzero(np.diff(offset) < 2)).size:
        raise MisfitError("runs/offset", f"gives region {wrong[0]} fewer than two runs")
    if "regions/class" in file:
        label = file["regions/class"][:].astype(np.int64)
        if (wrong := np.flatnonzero((label >= classes) & (label != ignore))).size:
            raise MisfitError("regions/class", f"holds {label[wrong[0]]} for {classes} classes")
    if "regions/box" in file:
        box = file["regions/box"][:]
        none = np.isnan(box).all(axis=1)
        with np.errstate(invalid="ignore"):
            fits = (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])
        if (wrong := np.flatnonzero(~none & ~fits)).size:
            raise MisfitError("regions/box", f"has no extent for region {wrong[0]}")


def _check_image_sizes(file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of the images, none of which has too many pixels."""
    tall, wide = (file[f"images/{name}"][:].astype(np.int64) for name in ("height", "width"))
    if (wrong := np.flatnonzero(tall * wide > MOST_PIXELS)).size:
        found = f"has image {wrong[0]} of {tall[wrong[0]]} x {wide[wrong[0]]} pixels, wanted at most {MOST_PIXELS}"
        raise MisfitError("images/height", found)
    return tall, wide


def _check_thresholds(file: h5py.File) -> None:
    value, low, high = (file[f"thresholds/{name}"][:] for name in ("value", "low", "high"))
    if np.isnan(value[1:]).any():
        raise MisfitError("thresholds/value", "holds NaN for an object class")
    for name, values in (("low", low), ("high", high)):
        if len(set(np.isnan(values[1:]).tolist())) > 1:
            raise MisfitError(f"thresholds/{name}", "holds NaN for some of the object classes and not for all")
    if (low[1:] > value[1:]).any() or (value[1:] > high[1:]).any() or (low[1:] > high[1:]).any():
        raise MisfitError("thresholds/low", "'thresholds/value' and 'thresholds/high' do not ascend")
