"""JSON files that hold a list of objects, or one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular


def read_objects(path: Path, wanted: str) -> list[dict[str, Any]]:
    """The objects of a JSON file's list.

    Args:
        path: The file.
        wanted: What should be in it, for the error.

    Raises:
        DatasetError: It cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_regular(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; wanted {wanted}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error}); wanted {wanted}") from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DatasetError(f"{path} holds no list of objects; wanted {wanted}")
    return content
