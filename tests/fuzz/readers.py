"""What reads an artefact in a process of its own, with everything that the program reads of its kind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import resource
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts import MapsReader, RegionsReader, open_artefact, require_unaltered
from pseudolabel.artefacts.inspection import header_data
from pseudolabel.cli.app import main
from pseudolabel.errors import ArtefactError
from pseudolabel.labels.assignment import read_thresholds


def read(path: Path) -> dict[str, Any]:
    """Inspect a file on the command line, then read all of it.

    Returns:
        ``code``: the exit code, 2 where either refuses it; ``lines``: of the error; ``result``: a digest of all that
        was read.
    """
    shown, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
        code = main(["inspect", str(path), "--json"])
    if code != 0:
        return {"code": code, "said": said.getvalue(), "result": ""}
    try:
        return {"code": 0, "said": "", "result": _everything(path)}
    except ArtefactError as error:
        return {"code": 2, "said": f"error: {error}\n", "result": ""}


def _everything(path: Path) -> str:
    digest = hashlib.sha256()
    with open_artefact(path) as artefact:
        digest.update(json.dumps(header_data(artefact.header), sort_keys=True).encode())
        if artefact.header.kind in ("cams", "soft-labels", "masks"):
            reader = MapsReader(artefact)
            digest.update(repr((reader.images.ids, reader.skipped)).encode(errors="surrogateescape"))
            for image in range(len(reader)):
                for label, values in sorted(reader.maps(image).items()):
                    digest.update(repr((image, label, values.shape, reader.size(image))).encode() + values.tobytes())
        elif artefact.header.kind == "regions":
            regions = RegionsReader(artefact)
            digest.update(repr((regions.images.ids, regions.skipped)).encode(errors="surrogateescape"))
            for image in range(len(regions)):
                found = regions.regions(image)
                digest.update(repr((found.size, found.prompt, found.area.tolist(), found.bounds.tolist())).encode())
                digest.update(
                    found.runs.tobytes() + found.score.tobytes() + found.label.tobytes() + found.box.tobytes()
                )
        else:
            require_unaltered(artefact)
            artefact.file.visititems(lambda name, item: digest.update(_values(name, item)))
    if artefact.header.kind == "thresholds":
        digest.update(repr(vars(read_thresholds(path)[0])).encode())
    return digest.hexdigest()


def _values(name: str, item: Any) -> bytes:
    return name.encode() + np.asarray(item[()]).tobytes() if isinstance(item, h5py.Dataset) else b""


def serve(connection: Connection) -> None:
    """Read the files whose paths come in, and answer with what was found and the peak of memory, in bytes."""
    while True:
        path = connection.recv()
        try:
            found = read(path)
        except Exception as error:  # noqa: BLE001 - what is not refused in one line is what is looked for
            found = {"code": 1, "said": f"{type(error).__name__}: {error}", "result": ""}
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        connection.send(found)
