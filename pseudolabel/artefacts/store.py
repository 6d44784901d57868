"""Opening, checking, digesting and finishing artefact files, as ``docs/format.md`` states in MUST and MAY lines."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.atomic import (
    claim,
    forget_unfinished,
    require_replaceable,
    unfinished_path,
    writing,
)
from pseudolabel.artefacts.attributes import JSON_ATTRIBUTES, attribute, has_loose_text, put_attribute, seal
from pseudolabel.artefacts.checks import FORMAT_VERSION, PREFIX, a_kind, checked_header
from pseudolabel.artefacts.header import CostMeter, Header, environment, now, package_version
from pseudolabel.artefacts.journal import MAGIC, WholeFile
from pseudolabel.artefacts.probe import ends_elsewhere, heaps_add_up, is_unprotected
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.runtime.files import what_stands

_DIGESTED = ("encoding-type", "encoding-version", "ignore-value", "facts")
_LIBRARY = ("v110", "v110")  # checksums on all metadata, so that damage is found and not followed
_READ_FAILURES = ("synchronously read", "synchronously open object", "visitation failed", "checksum")
_SMALL = 1 << 20  # bytes of data whose digest is checked whenever the file is opened
_COMPACT = 1 << 12  # bytes of data that are stored beside their description, under its checksum
_SLAB = 1 << 24  # bytes read at a time while digesting
_CACHE = 1 << 20  # bytes of chunks kept: images are read in their order, and HDF5 2's 8 MiB would fill up with the past


@dataclass(frozen=True)
class Artefact:
    """An open, checked artefact: its file handle for data, its header for everything else."""

    path: Path
    file: h5py.File
    header: Header


def check_output(out: Path, *, overwrite: bool, ending: str = ".h5") -> None:
    """Refuse to replace a finished artefact unless asked to, any other file, and a place that cannot be written to.

    Makes nothing: a stage that fails before it has something to keep leaves no folder behind.

    Args:
        out: Path of the output.
        overwrite: Whether it may be replaced: where its name has the ending, or it is an HDF5 file.
        ending: That such outputs usually have.
    """
    require_replaceable(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; pass --overwrite to replace it, or another --out")
    if out.is_file() and out.suffix != ending and not h5py.is_hdf5(out):
        raise InputError(f"{out} is no output of pseudolabel and will not be replaced; choose another --out")
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise InputError(f"{out} cannot be written: {nearest} is a file; choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written: no permission in {nearest}; choose another --out")


@contextmanager
def open_artefact(path: Path, *kinds: str, serves: str | None = None) -> Iterator[Artefact]:
    """Open an artefact for reading.

    Args:
        path: The file.
        *kinds: The kinds that the caller can use; none given means any.
        serves: Of checkpoints, what their network must serve as: a key of ``checks.SERVES``.

    Raises:
        ArtefactError: The file is missing, truncated, foreign, newer, of another kind, lacks a dataset, or holds links
            that lead out of it or filters that not every HDF5 build has. The message names file and HDF5 key.
    """
    if not path.is_file():
        what = "is a folder, not an artefact" if path.is_dir() else what_stands(path)
        raise ArtefactError(f"{path} {what}; wanted {a_kind(kinds, serves)}")
    with _open(path, a_kind(kinds, serves)) as file:
        artefact = Artefact(path, file, checked_header(path, file, kinds, serves))
        if _data_bytes(file) <= _SMALL:
            require_unaltered(artefact)
        try:
            yield artefact
        except (OSError, RuntimeError, KeyError) as error:  # the last: a dataset that a reader needs is not there
            if not any(text in str(error) for text in _READ_FAILURES):
                raise
            raise ArtefactError(f"{path} is damaged ({error}); make it again") from error


def _open(path: Path, wanted: str) -> h5py.File:
    """Open a file that HDF5 can be trusted to read to its end."""
    try:
        if is_unprotected(path) and not ends_elsewhere(path):
            raise ArtefactError(f"{path} is damaged (HDF5 cannot read its structure); make it again")
        file = h5py.File(path, "r", rdcc_nbytes=_CACHE)
    except PermissionError as error:
        raise ArtefactError(f"{path} may not be read: permission denied") from error
    except (OSError, RuntimeError) as error:
        raise ArtefactError(f"{path} {_what_it_is(path, error)}; wanted {wanted}") from error
    try:
        loose = has_loose_text(file)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        file.close()
        raise ArtefactError(f"{path} is damaged ({error}); make it again") from error
    if loose and not heaps_add_up(path) and not ends_elsewhere(path):
        file.close()
        raise ArtefactError(f"{path} is damaged (HDF5 cannot read its attributes); make it again")
    return file


def require_unaltered(artefact: Artefact) -> str:
    """Recompute an artefact's digest, for which all of its data are read, and return it.

    Raises:
        ArtefactError: The data are not those that were written.
    """
    try:
        found, stated = data_digest(artefact.file), artefact.header.digest
    except (OSError, RuntimeError) as error:
        raise ArtefactError(f"{artefact.path} is damaged ({error}); make it again") from error
    if found != stated:
        raise ArtefactError(
            f"{artefact.path} was altered: its data have digest {found[:12]}, it states {stated[:12]}; make it again"
        )
    return found


def read_header(path: Path, *kinds: str, serves: str | None = None) -> Header:
    """The header of an artefact; checks as ``open_artefact`` does."""
    with open_artefact(path, *kinds, serves=serves) as artefact:
        return artefact.header


def read_input(path: Path, digest: str) -> Header | None:
    """The header of what an artefact was made from, if it lies there and is still what was read.

    Args:
        path: Where it lay.
        digest: As the artefact has recorded it.
    """
    try:
        header = read_header(path)
    except ArtefactError:
        return None
    return header if header.digest == digest else None


def write_artefact(
    out: Path, header: Header, arrays: Mapping[str, np.ndarray], cost: CostMeter, *, images: int = 0
) -> Path:
    """Write a small artefact at once; a file that exists is complete.

    Args:
        out: Path of the artefact; replaced if it exists.
        header: What it says about itself.
        arrays: Dataset path to array; arrays of str are stored as UTF-8.
        cost: The meter started with the stage.
        images: How many images the stage handled.
    """
    with new_file(out, header) as file:
        for name, array in arrays.items():
            write_array(file, name, np.asarray(array))
        stamp(file, header, cost.read(images))
    return out


@contextmanager
def new_file(out: Path, header: Header) -> Iterator[h5py.File]:
    """A new HDF5 file with this header, which takes the name ``out`` once the block has filled and stamped it.

    Raises:
        PseudolabelError: It cannot be written. Nothing is left behind, and an earlier ``out`` is untouched.
    """
    require_replaceable(out)
    unfinished = unfinished_path(out)
    try:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            forget_unfinished(out)
            with _Sink(unfinished, "x+b") as sink:  # exclusive: follows no link
                claim(sink)
                try:
                    with h5py.File(sink, "w", libver=_LIBRARY, rdcc_nbytes=_CACHE) as file:
                        write_header(file, header)
                        yield file
                finally:
                    if sink.failure is not None:
                        raise sink.failure
                os.fsync(sink.fileno())
            _publish(unfinished, out)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


class _Sink(WholeFile):
    """A file that takes every write, and remembers the first one that failed.

    HDF5 cannot close a file whose last bytes cannot be written, and crashes the process when that ends (seen with 2.0).
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of the data, if nothing has failed yet."""
        try:
            if self.failure is None:
                super().write(data)
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        """Set the file's size, if that can be done."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


def write_header(file: h5py.File, header: Header) -> None:
    """Write the root attributes and the class names."""
    put_attribute(file, "encoding-type", PREFIX + header.kind)
    put_attribute(file, "encoding-version", FORMAT_VERSION)
    put_attribute(file, "pseudolabel-version", package_version())
    put_attribute(file, "stage", header.stage)
    put_attribute(file, "seed", header.seed)
    put_attribute(file, "ignore-value", header.ignore_value)
    values = {name: getattr(header, name) for name in JSON_ATTRIBUTES}
    values["inputs"] = [vars(item) for item in header.inputs]
    for name, value in values.items():
        put_attribute(file, name, json.dumps(value))
    if "classes" not in file:
        write_array(file, "classes/name", np.asarray(header.classes, dtype=object))


def write_array(file: h5py.File, name: str, array: np.ndarray) -> None:
    """Create one dataset, where HDF5 has a checksum of it, and compressed where that can pay."""
    kind = array.dtype
    if kind.kind in "OU":
        raw = [str(item).encode() for item in array.ravel()]
        kind = h5py.string_dtype("utf-8", max([1, *map(len, raw)]))
        array = np.asarray(raw, dtype=kind).reshape(array.shape)
    if array.nbytes <= _COMPACT:
        _write_compact(file, name, array, kind)
    elif kind.kind == "f":  # weights take long to compress and hardly shrink
        chunks = array.shape if array.nbytes <= _SLAB else True
        file.create_dataset(name, data=array, dtype=kind, chunks=chunks, fletcher32=True)
    else:
        file.create_dataset(name, data=array, dtype=kind, compression="gzip", compression_opts=4, shuffle=True)


def _write_compact(file: h5py.File, name: str, array: np.ndarray, kind: np.dtype) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    type_ = h5py.h5t.py_create(kind, logical=True)
    space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    made = h5py.h5d.create(file.id, name.encode(), type_, space, properties, links)
    if array.size:
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(array))


def stamp(file: h5py.File, header: Header, cost: Mapping[str, Any]) -> None:
    """Write what is known only at the end: environment, cost, digest, time, seal."""
    known = dict(header.environment) or environment()
    put_attribute(file, "environment", json.dumps(known))
    put_attribute(file, "cost", json.dumps(cost))
    put_attribute(file, "created", now())
    put_attribute(file, "digest", data_digest(file))
    put_attribute(file, "seal", seal(file))


def _publish(unfinished: Path, out: Path) -> None:
    """Give a file its name, in one step that a crash cannot split."""
    require_replaceable(out)
    unfinished.replace(out)
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    folder = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def data_digest(file: h5py.File) -> str:
    """SHA-256 of an artefact's data: every dataset's name, type, shape and values, and the attributes readers rely on.

    Independent of chunking, compression, creation time and cost. Constant memory.
    """
    digest = hashlib.sha256()
    for name in _DIGESTED:
        digest.update(f"{name}={attribute(file, name)}\n".encode(errors="surrogateescape"))
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


def _data_bytes(file: h5py.File) -> int:
    return sum(math.prod(dataset.shape) * dataset.dtype.itemsize for _, dataset in _datasets(file))


def _datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return found


def _what_it_is(path: Path, error: Exception) -> str:
    with path.open("rb") as handle:
        if handle.read(len(MAGIC)) == MAGIC:
            return "is half-finished (run its stage again)"
    if "truncated" in str(error):
        return "is truncated (make it again)"
    return "is locked by a program that writes it" if "lock" in str(error) else "is not an HDF5 file"
