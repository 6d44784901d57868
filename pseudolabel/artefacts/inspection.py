"""What an artefact holds, how it was made and from what: the functions behind ``inspect``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py

from pseudolabel.artefacts import Header, open_artefact, read_header, require_unaltered
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.errors import ArtefactError


def describe_artefact(path: Path) -> dict[str, Any]:
    """Everything an artefact says about itself, as plain JSON data.

    Args:
        path: The file.

    Returns:
        ``path``, ``bytes``, ``format_version``, ``sealed`` (whether its attributes are under a seal, which opening
        checks), every field of its Header, ``images``, ``maps`` and ``regions`` (counts, where it has any), ``skipped``
        (id to reason) and ``arrays``: for each dataset ``name``, ``shape``, ``type``, ``bytes`` and ``stored_bytes``.

    Raises:
        ArtefactError: As ``open_artefact``.
    """
    with open_artefact(path) as artefact:
        file = artefact.file
        arrays: list[dict[str, Any]] = []
        file.visititems(
            lambda name, item: arrays.append(_array(name, item)) if isinstance(item, h5py.Dataset) else None
        )
        counts = {group: int(file[name].shape[0]) for group, name in _COUNTED.items() if name in file}
        skipped = {}
        if "skipped" in file:
            group = file["skipped"]
            skipped = dict(zip(group["id"].asstr()[:].tolist(), group["reason"].asstr()[:].tolist(), strict=True))
        return {
            "path": str(path),
            "bytes": path.stat().st_size,
            "format_version": int(attribute(file, "encoding-version")),
            "sealed": bool(attribute(file, "encoding-version") > 1),
            **header_data(artefact.header),
            **counts,
            "skipped": skipped,
            "arrays": arrays,
        }


def header_data(header: Header) -> dict[str, Any]:
    """A header as plain JSON data."""
    data = {name: value for name, value in vars(header).items() if name != "inputs"}
    return data | {
        "classes": list(header.classes),
        "oracle": list(header.oracle),
        "inputs": [vars(item) for item in header.inputs],
    }


def verify(path: Path) -> str:
    """Recompute an artefact's digest.

    Returns:
        The digest, which is the one that the artefact states.

    Raises:
        ArtefactError: The data are not those that were written.
    """
    with open_artefact(path) as artefact:
        return require_unaltered(artefact)


def lineage(path: Path) -> dict[str, Any]:
    """An artefact, what it was made from, and so on back to the data set.

    Args:
        path: The file; its inputs are looked for where they lay, relative to it.

    Returns:
        ``path``, ``kind``, ``stage``, ``digest``, ``state`` and ``inputs``, a list of the same. ``state`` is ``found``;
        ``missing`` or ``changed`` (its digest is no longer the one that was read), where the trail ends; ``recorded``
        for what is no artefact; or ``above`` for an artefact that stands elsewhere in the tree.

    Raises:
        ArtefactError: The first file is no artefact.
    """
    return _follow(path, read_header(path), set())


_COUNTED = {"images": "images/id", "maps": "maps/image", "regions": "regions/image"}


def _follow(path: Path, header: Header, seen: set[str]) -> dict[str, Any]:
    seen.add(header.digest)
    inputs = []
    for item in header.inputs:
        place = Path(os.path.normpath(path.parent / item.path))
        node = {"path": str(place), "kind": item.kind, "digest": item.digest, "inputs": []}
        if item.kind in ("dataset", "weights", "npy", "png", "region-files", "annotations"):
            inputs.append(node | {"state": "recorded" if place.exists() else "missing"})
        elif not place.is_file():
            inputs.append(node | {"state": "missing"})
        elif item.digest in seen:
            inputs.append(node | {"state": "above"})
        else:
            inputs.append(_follow_artefact(place, node, seen))
    return {
        "path": str(path),
        "kind": header.kind,
        "stage": header.stage,
        "digest": header.digest,
        "state": "found",
        "inputs": inputs,
    }


def _follow_artefact(place: Path, node: dict[str, Any], seen: set[str]) -> dict[str, Any]:
    try:
        header = read_header(place)
    except ArtefactError:
        return node | {"state": "changed"}
    return _follow(place, header, seen) if header.digest == node["digest"] else node | {"state": "changed"}


def _array(name: str, dataset: h5py.Dataset) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(dataset.shape),
        "type": str(dataset.dtype),
        "bytes": int(dataset.nbytes),
        "stored_bytes": int(dataset.id.get_storage_size()),
    }
