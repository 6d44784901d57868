"""Opening, checking, digesting and finishing artefact files. ``docs/format.md`` states the same in MUST and MAY lines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.header import CostMeter, Header, Input, environment, now, package_version
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError

FORMAT_VERSION = 1
PREFIX = "pseudolabel/"

_MAPS = ("images/id", "images/height", "images/width", "maps/values", "maps/offset", "maps/image", "maps/height", "maps/width")
REQUIRED: dict[str, tuple[str, ...]] = {
    "cams": (*_MAPS, "maps/class"),
    "soft-labels": (*_MAPS, "maps/class"),
    "masks": _MAPS,
    "thresholds": ("thresholds/value", "thresholds/low", "thresholds/high"),
    "scores": ("confusion",),
    "checkpoint": ("weights",),
    "training-state": ("weights", "optimiser"),
}
"""Every kind of artefact and what it must hold."""

_JSON = ("options", "inputs", "dataset", "network", "protocol", "oracle", "facts", "environment", "cost")
_DIGESTED = ("encoding-type", "encoding-version", "ignore-value", "facts")
_FILTERS = {"gzip", "shuffle", "fletcher32"}  # in every HDF5 build
_WRITE_FAILURES = (
    "No space left on device", "File too large", "Disk quota exceeded", "Read-only file system", "Permission denied",
)  # fmt: skip
_SLAB = 1 << 24  # bytes read at a time while digesting


@dataclass(frozen=True)
class Artefact:
    """An open, checked artefact: its file handle for data, its header for everything else."""

    path: Path
    file: h5py.File
    header: Header


def partial_path(out: Path) -> Path:
    """Where an artefact grows until it is complete."""
    return out.with_name(out.name + ".partial")


def check_output(out: Path, *, overwrite: bool) -> None:
    """Make the folder of an output; refuse to replace a finished artefact unless asked to."""
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; pass --overwrite to replace it, or another --out")
    out.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def open_artefact(path: Path, *kinds: str) -> Iterator[Artefact]:
    """Open an artefact for reading.

    Args:
        path: The file.
        *kinds: The kinds that the caller can use; none given means any.

    Raises:
        ArtefactError: The file is missing, truncated, foreign, newer, of another kind, lacks a dataset, or holds links
            that lead out of it or filters that not every HDF5 build has. The message names file and HDF5 key.
    """
    if not path.is_file():
        what = "is a folder, not an artefact" if path.is_dir() else "does not exist"
        raise ArtefactError(f"{path} {what}; wanted {_a_kind(kinds)}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        cause = "is truncated" if "truncated" in str(error) else "is not an HDF5 file"
        raise ArtefactError(f"{path} {cause}; wanted {_a_kind(kinds)}: make it again") from error
    with file:
        header = _checked_header(path, file, kinds)
        _check_contents(path, file, header.kind)
        yield Artefact(path, file, header)


def read_header(path: Path, *kinds: str) -> Header:
    """The header of an artefact; checks as ``open_artefact`` does."""
    with open_artefact(path, *kinds) as artefact:
        return artefact.header


def write_artefact(out: Path, header: Header, arrays: Mapping[str, np.ndarray], cost: CostMeter, *, images: int = 0) -> Path:
    """Write a small artefact at once: into the partial file, then renamed, so that a file that exists is complete.

    Args:
        out: Path of the artefact; replaced if it exists.
        header: What it says about itself.
        arrays: Dataset path to array; arrays of str are stored as UTF-8.
        cost: The meter started with the stage.
        images: How many images the stage handled.
    """
    partial = partial_path(out)
    with writing(partial), h5py.File(partial, "w") as file:
        write_header(file, header)
        for name, array in arrays.items():
            write_array(file, name, np.asarray(array))
        stamp(file, header, cost.read(images))
    return publish(partial, out)


def write_header(file: h5py.File, header: Header) -> None:
    """Write the root attributes and the class names."""
    file.attrs["encoding-type"] = PREFIX + header.kind
    file.attrs["encoding-version"] = FORMAT_VERSION
    file.attrs["pseudolabel-version"] = package_version()
    file.attrs["stage"] = header.stage
    file.attrs["seed"] = header.seed
    file.attrs["ignore-value"] = header.ignore_value
    values = {name: getattr(header, name) for name in _JSON}
    values["inputs"] = [vars(item) for item in header.inputs]
    for name, value in values.items():
        file.attrs[name] = json.dumps(value, sort_keys=True)
    if "classes" not in file:
        write_array(file, "classes/name", np.asarray(header.classes, dtype=object))


def write_array(file: h5py.File, name: str, array: np.ndarray) -> None:
    """Create one dataset, compressed where that can pay."""
    if array.dtype.kind in "OU":
        raw = [str(item).encode() for item in array.ravel()]
        kind = h5py.string_dtype("utf-8", max([1, *map(len, raw)]))
        array = np.asarray(raw, dtype=kind).reshape(array.shape)
        file.create_dataset(name, data=array, dtype=kind)
    elif array.nbytes > 4096:
        file.create_dataset(name, data=array, compression="gzip", compression_opts=4, shuffle=True)
    else:
        file.create_dataset(name, data=array)


def stamp(file: h5py.File, header: Header, cost: Mapping[str, Any]) -> None:
    """Write what is known only at the end: environment, cost, digest, time."""
    known = dict(header.environment) or environment()
    file.attrs["environment"] = json.dumps(known, sort_keys=True)
    file.attrs["cost"] = json.dumps(cost, sort_keys=True)
    file.attrs["created"] = now()
    file.attrs["digest"] = data_digest(file)


def publish(partial: Path, out: Path) -> Path:
    """Make a partial file durable and give it its name, in one step that a crash cannot split."""
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    partial.replace(out)
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return out


@contextmanager
def writing(partial: Path) -> Iterator[None]:
    """Turn a failed write (a full disk, a read-only folder) into one line; the artefact of that name is untouched."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 reports a failed write as either, with the cause in its text
        known = [text for text in _WRITE_FAILURES if text in str(error)]
        if not known and not isinstance(error, PermissionError):
            raise
        cause = known[0] if known else "Permission denied"
        raise PseudolabelError(
            f"cannot write {partial}: {cause}; free some space or choose another --out, and run again"
        ) from error


def data_digest(file: h5py.File) -> str:
    """SHA-256 of an artefact's data: every dataset's name, type, shape and values, and the attributes readers rely on.

    Independent of chunking, compression, creation time and cost. Constant memory.
    """
    digest = hashlib.sha256()
    for name in _DIGESTED:
        digest.update(f"{name}={file.attrs.get(name)}\n".encode())
    for name, dataset in sorted(_datasets(file)):
        digest.update(f"{name}:{dataset.dtype.str}:{dataset.shape}\n".encode())
        if dataset.shape == ():
            digest.update(np.asarray(dataset[()]).tobytes())
            continue
        row = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
        step = max(1, _SLAB // row)
        for start in range(0, dataset.shape[0], step):
            digest.update(np.ascontiguousarray(dataset[start : start + step]).tobytes())
    return digest.hexdigest()


def _datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return found


def _checked_header(path: Path, file: h5py.File, kinds: tuple[str, ...]) -> Header:
    encoding = file.attrs.get("encoding-type")
    if not isinstance(encoding, str) or not encoding.startswith(PREFIX):
        raise ArtefactError(f"{path} is an HDF5 file of another program (no encoding-type); wanted {_a_kind(kinds)}")
    version = int(file.attrs.get("encoding-version", 0))
    if version != FORMAT_VERSION:
        newer = "newer than this pseudolabel reads: upgrade it" if version > FORMAT_VERSION else "not supported"
        raise ArtefactError(f"{path} has format version {version}, {newer} (supported: {FORMAT_VERSION})")
    kind = encoding.removeprefix(PREFIX)
    if kind not in REQUIRED:
        raise ArtefactError(f"{path} holds {kind!r}, which is no known kind; known: {', '.join(REQUIRED)}")
    if kinds and kind not in kinds:
        raise ArtefactError(f"{path} holds {kind} (made by {file.attrs.get('stage')}); wanted {_a_kind(kinds)}")
    if not file.attrs.get("digest"):
        raise ArtefactError(f"{path} was never finished (it has no digest); run '{file.attrs.get('stage')}' again")
    values: dict[str, Any] = {}
    for name in _JSON:
        try:
            values[name] = json.loads(file.attrs[name])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path}: attribute {name!r} is missing or not JSON; make it again") from error
    if "classes/name" not in file:
        raise ArtefactError(f"{path}: dataset 'classes/name' is missing; make it again")
    values["inputs"] = tuple(Input(**item) for item in values["inputs"])
    values["oracle"] = tuple(values["oracle"])
    return Header(
        kind=kind,
        stage=str(file.attrs["stage"]),
        seed=int(file.attrs["seed"]),
        classes=tuple(file["classes/name"].asstr()[:]),
        ignore_value=int(file.attrs["ignore-value"]),
        digest=str(file.attrs["digest"]),
        created=str(file.attrs["created"]),
        version=str(file.attrs["pseudolabel-version"]),
        **values,
    )


def _check_contents(path: Path, file: h5py.File, kind: str) -> None:
    _check_links(path, file, "")
    for name, dataset in _datasets(file):
        _check_storage(path, name, dataset)
    for name in REQUIRED[kind]:
        if name not in file:
            raise ArtefactError(f"{path}: dataset {name!r} is missing from this {kind} artefact; make it again")
    if "maps/offset" in file:
        maps = file["maps"]
        count = maps["image"].shape[0]
        lengths = {name: maps[name].shape[0] for name in ("height", "width", "class") if name in maps}
        if maps["offset"].shape != (count + 1,) or any(length != count for length in lengths.values()):
            raise ArtefactError(f"{path}: 'maps/offset' and 'maps/image' disagree about the number of maps; make it again")
        if int(maps["offset"][-1]) != maps["values"].shape[0]:
            raise ArtefactError(f"{path}: 'maps/values' is not as long as 'maps/offset' says; make it again")


def _check_links(path: Path, group: h5py.Group, prefix: str) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        key = f"{prefix}{name}"
        if not isinstance(link, h5py.HardLink):
            raise ArtefactError(f"{path}: {key!r} is a link out of place ({type(link).__name__}); such files are refused")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(path, item, key + "/")


def _check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    properties = dataset.id.get_create_plist()
    if dataset.external or dataset.is_virtual:
        raise ArtefactError(f"{path}: the data of {name!r} lies in another file; such files are refused")
    for index in range(properties.get_nfilters()):
        code = properties.get_filter(index)[0]
        if code not in (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32):
            raise ArtefactError(f"{path}: {name!r} uses HDF5 filter {code}; only {', '.join(sorted(_FILTERS))} are read")


def _a_kind(kinds: tuple[str, ...]) -> str:
    return " or ".join(kinds) + " artefact" if kinds else "a pseudolabel artefact"
