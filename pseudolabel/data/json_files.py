"""JSON files of labels, COCO's among them: read strictly, with clear words for every file that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from pseudolabel.data.faults import Fault
from pseudolabel.data.names import nfc
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular


def record_id(file_name: str) -> str:
    """An image's id: COCO's ``file_name`` without its ending, in NFC."""
    path = PurePosixPath(nfc(file_name))
    return str(path.with_suffix("")) if path.name else ""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        return json.loads(read_regular(path), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not JSON (line {error.lineno}: {error.msg}); replace it") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error})") from error


def parse_json(path: Path, wanted: str = "COCO's object of images and annotations") -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        wanted: What should be in it, for the error.

    Raises:
        DatasetError: It cannot be read, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a JSON {type(content).__name__}; wanted {wanted}")
    return {nfc(key): value for key, value in content.items()}


def entries(
    path: Path, content: Mapping[str, Any], section: str, kinds: Mapping[str, Any], fault: Fault
) -> Iterator[dict[str, Any]]:
    """The entries of one section that have all keys in ``kinds``, of these types."""
    if not isinstance(content.get(section), list):
        raise DatasetError(f"{path} lacks the key {section!r}; wanted COCO's images, annotations and categories")
    for place, entry in enumerate(content[section]):
        if not isinstance(entry, dict):
            fault(f"{path}: {section}[{place}] is no JSON object")
        elif absent := [key for key in kinds if key not in entry]:
            fault(f"{path}: {section}[{place}] lacks the key {absent[0]!r}")
        elif wrong := [key for key, kind in kinds.items() if not isinstance(entry[key], kind)]:
            fault(f"{path}: {section}[{place}] has {wrong[0]} {entry[wrong[0]]!r:.40}, which is of the wrong type")
        else:
            yield entry
