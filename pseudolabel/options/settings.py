"""Settings from YAML files and from ``key=value`` words."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from pseudolabel.errors import InputError

_NODES = 100_000  # values that a file of settings may have, those that aliases repeat included


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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:  # of a tag, or a date
            kind = node.tag.rpartition(":")[2]
            found = node.value[:40] if isinstance(node.value, str) else "what follows"
            raise yaml.constructor.ConstructorError(
                None, None, f"{found!r} is no {kind}; put it in quotes if it is a word", node.start_mark
            ) from error


def _require_tree(node: yaml.Node | None) -> None:
    """Refuse what aliases make endless or too large."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = None
            parts = (
                node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
            )
            sizes[id(node)] = 1 + sum(map(size, parts))
        found = sizes[id(node)]
        if found is None or found > _NODES:
            what = "an alias stands for what it is in" if found is None else f"aliases make more than {_NODES} values"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return found

    if node is not None:
        size(node)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping with words as keys.

    Raises:
        InputError: It is missing, no YAML, no mapping, or a key is no word or stands twice.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is no regular file" if os.path.lexists(path) else "does not exist"
        raise InputError(f"{path} {found}; wanted a YAML file of settings")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _require_tree(node)
        values = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # some values are made only when the whole is read
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
