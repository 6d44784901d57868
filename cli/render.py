"""Results on stdout: a table, or one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pseudolabel.runtime.terminal import printable_json

from .scores import show_scores
from .tables import console, key_values


def show_result(stage: str, result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a stage returned."""
    if as_json:
        print_json(result)
    elif stage == "evaluate-masks":
        show_scores(result)
    else:
        console().print(key_values(result, title=stage))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))
