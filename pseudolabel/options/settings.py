"""Settings from YAML files and from ``key=value`` words."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from pseudolabel.errors import InputError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key that stands twice is an error and not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping with words as keys.

    Raises:
        InputError: It is missing, no YAML, no mapping, or a key is no word or stands twice.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is no regular file" if os.path.lexists(path) else "does not exist"
        raise InputError(f"{path} {found}; wanted a YAML file of settings")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{place} is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; wanted a YAML file of settings") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}, wanted 'key: value' lines")
    require_words(values, str(path))
    return values


def require_words(values: dict[Any, Any], where: str) -> None:
    """Refuse keys that YAML does not read as words, such as ``on`` (true) and ``2``."""
    for key in values:
        if not isinstance(key, str):
            raise InputError(f"{where}: key {key!r} is not a word; put it in quotes")


def parse_assignments(words: Iterable[str], flag: str = "--set") -> dict[str, str]:
    """``["epochs=2"]`` to ``{"epochs": "2"}``.

    Raises:
        InputError: A word has no ``=``.
    """
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"{flag} {word!r}: wanted KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs
