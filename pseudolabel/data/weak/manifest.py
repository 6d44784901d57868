"""``simulated.json``: how weak labels that nobody drew were made, in the folder that holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudolabel.data.json_files import parse_json
from pseudolabel.runtime.files import stands

MANIFEST = "simulated.json"


def write_manifest(folder: Path, kind: str, facts: Mapping[str, Any]) -> None:
    """State in a folder that its labels are simulated.

    Args:
        folder: Where the labels are.
        kind: ``scribbles``, ``points`` or ``boxes``.
        facts: From which masks, with which seed and settings; plain JSON data.
    """
    (folder / MANIFEST).write_text(json.dumps({"simulated": kind, **facts}, indent=2) + "\n", encoding="utf-8")


def read_manifest(path: Path, kind: str) -> dict[str, Any] | None:
    """What the manifest in a folder, or beside a file, says of labels of this kind; None where it says nothing.

    Raises:
        DatasetError: There is one, and it is not JSON.
    """
    file = (path if path.is_dir() else path.parent) / MANIFEST
    facts = parse_json(file, "what 'pseudolabel data' writes beside simulated labels") if stands(file) else {}
    return facts if facts.pop("simulated", None) == kind else None
