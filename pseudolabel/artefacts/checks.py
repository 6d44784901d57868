"""What an open file must be to count as an artefact: checked before anything in it is followed or believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from pseudolabel.artefacts.header import Header, Input
from pseudolabel.errors import ArtefactError
from pseudolabel.runtime.formatting import either

FORMAT_VERSION = 1
PREFIX = "pseudolabel/"

_MAPS = (
    "images/id",
    "images/height",
    "images/width",
    "maps/values",
    "maps/offset",
    "maps/image",
    "maps/height",
    "maps/width",
)
REQUIRED: dict[str, tuple[str, ...]] = {
    "cams": (*_MAPS, "maps/class"),
    "soft-labels": (*_MAPS, "maps/class"),
    "masks": _MAPS,
    "thresholds": ("thresholds/value", "thresholds/low", "thresholds/high"),
    "crf-search": ("trials/name", "trials/criterion", "images/id"),
    "scores": ("confusion",),
    "checkpoint": ("weights",),
    "training-state": ("weights", "optimiser"),
}
"""Every kind of artefact and what it must hold."""

MAKERS: dict[str, tuple[str, ...]] = {
    "cams": ("make-cams", "import-cams"),
    "soft-labels": ("refine-crf", "predict-masks"),
    "masks": ("export-masks", "predict-masks"),
    "thresholds": ("search-threshold",),
    "crf-search": ("search-crf",),
    "scores": ("evaluate-masks",),
    "checkpoint": ("train-cam", "train-cosa", "train-scribble", "train-segmenter"),
}
"""The stages that make a kind that a user may be asked for."""
SERVES: dict[str, tuple[str, ...]] = {"cam": ("cam", "cosa"), "segmenter": ("segmenter", "scribble", "cosa")}
"""The types of network that can be had from a checkpoint as each kind; ``train-TYPE`` trains them."""

JSON_ATTRIBUTES = ("options", "inputs", "dataset", "network", "protocol", "oracle", "facts", "environment", "cost")
_FILTERS = {
    "gzip": h5py.h5z.FILTER_DEFLATE,
    "shuffle": h5py.h5z.FILTER_SHUFFLE,
    "fletcher32": h5py.h5z.FILTER_FLETCHER32,
}
_DEEPEST = 16  # groups within groups; a file whose groups contain themselves has no bottom


def checked_header(path: Path, file: h5py.File, kinds: tuple[str, ...] = (), serves: str | None = None) -> Header:
    """Check an open file: type and version first, then where its data lie, then what is in it.

    Raises:
        ArtefactError: As ``open_artefact``.
    """
    try:
        kind = _checked_kind(path, file, kinds, serves)
        _check_links(path, file)
        header = _read_header(path, file, kind)
        for name in REQUIRED[kind]:
            if name not in file:
                raise ArtefactError(f"{path}: {name!r} is missing from this {kind} artefact; make it again")
        if "images/id" in file and h5py.check_string_dtype(file["images/id"].dtype) is None:
            raise ArtefactError(f"{path}: 'images/id' holds {file['images/id'].dtype}, wanted strings; make it again")
        if "maps" in file:
            _check_maps(path, file)
        if serves:
            _check_network(path, header, kinds, serves)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:  # bytes that are not HDF5
        raise ArtefactError(f"{path} is damaged ({error}); make it again") from error
    return header


def _checked_kind(path: Path, file: h5py.File, kinds: tuple[str, ...], serves: str | None) -> str:
    wanted = a_kind(kinds, serves)
    encoding = file.attrs.get("encoding-type")
    if not isinstance(encoding, str) or not encoding.startswith(PREFIX):
        raise ArtefactError(f"{path} is an HDF5 file of another program (no encoding-type); wanted {wanted}")
    version = int(file.attrs.get("encoding-version", 0))
    if version != FORMAT_VERSION:
        newer = "newer than this pseudolabel reads: upgrade it" if version > FORMAT_VERSION else "not supported"
        raise ArtefactError(f"{path} has format version {version}, {newer} (supported: {FORMAT_VERSION})")
    kind = encoding.removeprefix(PREFIX)
    if kind not in REQUIRED:
        raise ArtefactError(f"{path} holds {kind!r}, which is no known kind; known: {', '.join(REQUIRED)}")
    stage = file.attrs.get("stage")
    if kinds and kind not in kinds:
        raise ArtefactError(f"{path} holds {kind} (made by {stage}); wanted {wanted}")
    if not file.attrs.get("digest"):
        raise ArtefactError(f"{path} was never finished (it has no digest); run '{stage}' again")
    return kind


def _read_header(path: Path, file: h5py.File, kind: str) -> Header:
    values: dict[str, Any] = {}
    for name in JSON_ATTRIBUTES:
        try:
            values[name] = json.loads(file.attrs[name])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path}: attribute {name!r} is missing or not JSON; make it again") from error
        wanted = list if name in ("inputs", "oracle") else dict
        if not isinstance(values[name], wanted):
            what = "list" if wanted is list else "object"
            raise ArtefactError(f"{path}: attribute {name!r} is no JSON {what}; make it again")
    if "classes/name" not in file:
        raise ArtefactError(f"{path}: 'classes/name' is missing from this {kind} artefact; make it again")
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


def _check_network(path: Path, header: Header, kinds: tuple[str, ...], serves: str) -> None:
    found = header.facts.get("architecture", {}).get("type", "unknown")
    if found not in SERVES[serves]:
        raise ArtefactError(f"{path} holds a {found} network (made by {header.stage}); wanted {a_kind(kinds, serves)}")


def _check_links(path: Path, group: h5py.Group, prefix: str = "") -> None:
    """Refuse links that could lead out of the file, and data that lie elsewhere or need a filter of one's own."""
    for name in group:
        key = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise ArtefactError(f"{path}: {key!r} is {kind}; files with links are refused")
        if key.count("/") > _DEEPEST:
            raise ArtefactError(
                f"{path}: {key[:40]!r} ... lies more than {_DEEPEST} groups deep; such files are refused"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(path, item, key + "/")
        elif isinstance(item, h5py.Dataset):
            _check_storage(path, key, item)


def _check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise ArtefactError(f"{path}: the data of {name!r} lie in another file; such files are refused")
    if dataset.shape is None:
        raise ArtefactError(f"{path}: {name!r} holds nothing; make it again")
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code = properties.get_filter(index)[0]
        if code not in _FILTERS.values():
            raise ArtefactError(f"{path}: {name!r} uses HDF5 filter {code}; only {', '.join(_FILTERS)} are read")


def _check_maps(path: Path, file: h5py.File) -> None:
    shapes = {name: item.shape for name, item in file["maps"].items()}
    flat = [name for name, shape in shapes.items() if len(shape) != 1]
    if flat:
        raise ArtefactError(
            f"{path}: 'maps/{flat[0]}' has shape {shapes[flat[0]]}, wanted one dimension; make it again"
        )
    count = shapes["image"][0]
    for name, wanted in {"offset": count + 1, "height": count, "width": count, "class": count}.items():
        if name in shapes and shapes[name][0] != wanted:
            raise ArtefactError(
                f"{path}: 'maps/{name}' has {shapes[name][0]} entries for {count} maps, wanted {wanted}; make it again"
            )
    end = int(file["maps/offset"][-1])
    if end != shapes["values"][0]:
        raise ArtefactError(
            f"{path}: 'maps/values' has {shapes['values'][0]} values, 'maps/offset' says {end}; make it again"
        )


def a_kind(kinds: tuple[str, ...], serves: str | None = None) -> str:
    """What was wanted, in words, and which stages make it."""
    if not kinds:
        return "a pseudolabel artefact"
    if serves:
        return f"a checkpoint of {either(f'train-{name}' for name in SERVES[serves])}"
    stages = dict.fromkeys(stage for kind in kinds for stage in MAKERS.get(kind, ()))
    return f"{either(kinds)} artefact" + (f" (made by {either(stages)})" if stages else "")
