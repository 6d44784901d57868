"""The root attributes of a file: written as text of fixed length, read and checked against ``schema``, sealed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.header import EXTERNAL, Header, Input
from pseudolabel.artefacts.schema import ATTRIBUTES, FIELDS, LIST, NEEDED, NETWORK_NEEDED, OBJECT, TEXT
from pseudolabel.errors import ArtefactError

JSON_ATTRIBUTES = tuple(name for name, kind in ATTRIBUTES.items() if kind in (OBJECT, LIST))
_SHA256 = re.compile(r"[0-9a-f]{64}")


def put_attribute(file: h5py.File, name: str, value: str | int) -> None:
    """Set a root attribute: text has a fixed length, so that it lies where HDF5 has checksums."""
    if isinstance(value, int):
        file.attrs[name] = value
        return
    raw = value.encode("utf-8", errors="surrogateescape")
    file.attrs.create(name, np.bytes_(raw), dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def attribute(file: h5py.File, name: str) -> Any:
    """A root attribute: text as str, whichever way it is stored; None if there is none."""
    value = file.attrs.get(name)
    return value.decode("utf-8", errors="surrogateescape") if isinstance(value, bytes) else value


def has_loose_text(file: h5py.File) -> bool:
    """Whether a root attribute is text of variable length, or of another type that lies in the heap."""
    for name in file.attrs:
        found = file.attrs.get_id(name).get_type()
        if not isinstance(found, h5py.h5t.TypeStringID | h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
            return True
        if isinstance(found, h5py.h5t.TypeStringID) and found.is_variable_str():
            return True
    return False


def seal(file: h5py.File) -> str:
    """SHA-256 over all that a header says: ``NAME=VALUE`` for every attribute of the format but the seal itself."""
    lines = (f"{name}={attribute(file, name)}\n" for name in sorted(ATTRIBUTES) if name != "seal")
    return hashlib.sha256("".join(lines).encode("utf-8", errors="surrogateescape")).hexdigest()


def read_attributes(path: Path, file: h5py.File, kind: str, classes: tuple[str, ...]) -> Header:
    """The header of a file of a known kind and version.

    Raises:
        ArtefactError: An attribute is missing or not what it should be.
    """
    values = {name: _json(path, name, attribute(file, name)) for name in JSON_ATTRIBUTES}
    for name, wanted in FIELDS.items():
        _check_fields(path, name, values[name], wanted)
    for name, needed in NEEDED.get(kind, {}).items():
        _check_needed(path, name, values[name], needed)
    if kind == "regions":
        _check_model(path, values["facts"], values["protocol"])
    text = {
        name: _text(path, name, attribute(file, name))
        for name, type_ in ATTRIBUTES.items()
        if type_ == TEXT and name != "seal"
    }
    seed = _whole(path, "seed", attribute(file, "seed"), 0, 2**63 - 1)
    ignore = _whole(path, "ignore-value", attribute(file, "ignore-value"), 0, 255)
    if ignore < len(classes):
        raise ArtefactError(f"{path}: attribute 'ignore-value' is {ignore}, which is a class; make it again")
    if not _SHA256.fullmatch(text["digest"]):
        raise ArtefactError(f"{path}: attribute 'digest' is no SHA-256 in hexadecimal; make it again")
    if not _is_time(text["created"]):
        raise ArtefactError(f"{path}: attribute 'created' is no time of ISO 8601; make it again")
    return Header(
        kind=kind,
        stage=text["stage"],
        seed=seed,
        classes=classes,
        ignore_value=ignore,
        digest=text["digest"],
        created=text["created"],
        version=text["pseudolabel-version"],
        inputs=tuple(_input(path, item) for item in values.pop("inputs")),
        oracle=tuple(_sentence(path, item) for item in values.pop("oracle")),
        **values,
    )


def check_network_facts(path: Path, header: Header) -> None:
    """Refuse a checkpoint that does not say what its network is built from.

    Raises:
        ArtefactError: It does not.
    """
    for name, needed in NETWORK_NEEDED.items():
        _check_needed(path, name, getattr(header, name), needed)


def _json(path: Path, name: str, value: Any) -> Any:
    try:
        found = json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: attribute {name!r} is missing or not JSON; make it again") from error
    if not isinstance(found, list if ATTRIBUTES[name] == LIST else dict):
        raise ArtefactError(f"{path}: attribute {name!r} is no {ATTRIBUTES[name]}; make it again")
    return found


def _text(path: Path, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ArtefactError(f"{path}: attribute {name!r} is missing or no text; make it again")
    return value


def _whole(path: Path, name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int | np.integer) or not low <= int(value) <= high:
        raise ArtefactError(f"{path}: attribute {name!r} is missing or no integer from {low} to {high}; make it again")
    return int(value)


def _input(path: Path, item: Any) -> Input:
    names = ("kind", "path", "digest")
    if not isinstance(item, dict) or set(item) != set(names) or not all(isinstance(item[name], str) for name in names):
        raise ArtefactError(f"{path}: attribute 'inputs' has an entry other than kind, path and digest; make it again")
    return Input(**item)


def _sentence(path: Path, item: Any) -> str:
    if not isinstance(item, str):
        raise ArtefactError(f"{path}: attribute 'oracle' has an entry that is no text; make it again")
    return item


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_fields(path: Path, name: str, found: Mapping[str, Any], wanted: Mapping[str, tuple[str, ...]]) -> None:
    for field, kinds in wanted.items():
        if field in found and not any(_IS[kind](found[field]) for kind in kinds):
            shown = json.dumps(found[field])[:40]
            raise ArtefactError(
                f"{path}: {field!r} in attribute {name!r} is {shown}, wanted {' or '.join(kinds)}; make it again"
            )


def _check_needed(path: Path, name: str, found: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    for field in needed:
        if field not in found:
            raise ArtefactError(f"{path}: {field!r} is missing from attribute {name!r}; make it again")


def _check_model(path: Path, facts: Mapping[str, Any], protocol: Mapping[str, Any]) -> None:
    """Regions of a trained model say so wherever a score will look."""
    if facts["model"] is None:
        return
    for field in ("licence", "model_trained_on"):
        if facts[field] is None:
            raise ArtefactError(f"{path}: {field!r} in attribute 'facts' is null beside a model; make it again")
    if not protocol.get(EXTERNAL):
        raise ArtefactError(f"{path}: {EXTERNAL!r} is missing from attribute 'protocol'; make it again")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_IS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "strings": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "numbers": lambda value: isinstance(value, list) and bool(value) and all(map(_is_number, value)),
    "positive numbers": lambda value: _IS["numbers"](value) and min(value) > 0,
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0,
    "amount": lambda value: _is_number(value) and value >= 0,
}
