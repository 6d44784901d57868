"""Class names that come with a data set, as this project and as labelme and CVAT write them.

One name a line, in index order from 1. ``background`` may stand first or be left out, also as ``_background_``, and
``__ignore__`` before it (labelme). Lines may be numbered (``0 background``), and of CVAT's
``label:color_rgb:parts:actions`` the label counts. Everything else that is no name a line is refused: it would shift
the indices.
"""

from __future__ import annotations

import re
from pathlib import Path

from pseudolabel.data.lists import MAX_CLASSES, background_name, checked_classes, read_text
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import stands

FILES = ("classes.txt", "class_names.txt", "labelmap.txt")
"""Where a data set's folder may hold its class names: ours, labelme's and CVAT's."""

_LABELMAP = re.compile(r"([^:]+):(?:\d+,\d+,\d+)?:[^:]*:[^:]*")
_NUMBERED = re.compile(r"(\d{1,9})\s*[\s:,;=.]\s*(\S.*)")
_HEADING = re.compile(
    r"(id|index|class(es)?|class[_ ]?(name|id)s?|names?|labels?|categor(y|ies))([,; ]+(names?|class|labels?|r|g|b))*",
    re.IGNORECASE,
)
_ENDING = re.compile(r"(.+)\s(\d{1,9})")
_WANTED = "wanted one class name a line, in index order"
_FORMS = (
    (re.compile(r"[\[{]"), "begins like JSON"),
    (re.compile(r"- |names:|nc:"), "begins like YAML"),
    (re.compile(r"<\?xml|<(class|label|name)(es|s)?\b", re.IGNORECASE), "begins like XML"),
    (re.compile(r"#"), "begins with '#'"),
    (re.compile(r".*\t"), "holds several columns"),
    (re.compile(r"[^:]*:\d+,\d+,\d+:"), "holds a colour"),
    (re.compile(r".*[\s,;:=]\d+[\s,]+\d+[\s,]+\d+$"), "ends in a colour"),
    (re.compile(r".*[,;:=\t]\s*\d+$"), "ends in a number"),
)


def class_file(root: Path) -> Path | None:
    """The file in a data set's folder that names its classes, if there is one."""
    return next((root / name for name in FILES if stands(root / name)), None)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names.

    Args:
        path: UTF-8 text, as the module says.

    Returns:
        The names in index order, background first.

    Raises:
        DatasetError: It is no list of names, a name stands twice, or there are none or too many.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if lines and re.match(r"#\s*label\s*:", lines[0][1]):
        lines = lines[1:]
    if lines and all(_LABELMAP.fullmatch(line) for _, line in lines):
        lines = [(number, line.partition(":")[0].strip()) for number, line in lines]
    elif len(lines) > 1 and all(_NUMBERED.fullmatch(line) for _, line in lines):
        lines = _without_numbers(path, lines)
    for number, line in lines[: MAX_CLASSES + 2]:  # more are refused below, whatever they say
        complaint = next((words for form, words in _FORMS if form.match(line)), None)
        if complaint is None and len(lines) > 1 and number == lines[0][0] and _HEADING.fullmatch(line):
            complaint = "looks like a heading"
        if complaint is None and len(lines) == 1 and re.search(r"[,;]", line):
            complaint = "holds several names"
        if complaint:
            raise DatasetError(f"{path}, line {number}: {line!r} {complaint}; {_WANTED}")
    if complaint := _numbered_at_the_end([line for _, line in lines]):
        raise DatasetError(f"{path}: {complaint}; {_WANTED}")
    if lines and _is_ignored(lines[0][1]):
        lines = lines[1:]
    if lines and (background_name(lines[0][1]) or lines[0][1].casefold() == "bg"):
        lines = lines[1:]
    for number, line in lines:
        if _is_ignored(line):
            raise DatasetError(
                f"{path}, line {number}: {line!r} stands behind other names; it is no class: put it first, as labelme "
                "does, or leave it out"
            )
    return checked_classes(path, [line for _, line in lines])


def _is_ignored(name: str) -> bool:
    """Whether a name is labelme's for pixels without a label."""
    return name.startswith("_") and name.strip("_ ").casefold() == "ignore"


def _numbered_at_the_end(lines: list[str]) -> str | None:
    """Why lines such as ``cat 1``, ``dog 2`` are no names; names that differ by the number alone are."""
    found = [match for line in lines if (match := _ENDING.fullmatch(line))]
    numbers = [int(match[2]) for match in found]
    if len(found) < max(len(lines), 2) or numbers not in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        return None
    return f"its lines end in their numbers ({lines[0]!r})" if len({match[1] for match in found}) > 1 else None


def _without_numbers(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Numbered lines without their numbers, once it is sure that these are the indices."""
    pairs = [(number, _NUMBERED.fullmatch(line)) for number, line in lines]
    found = [(number, int(match[1]), match[2].strip()) for number, match in pairs if match]
    start = found[0][1]
    if [index for _, index, _ in found] != list(range(start, start + len(found))) or start > 1:
        raise DatasetError(f"{path}: its lines are numbered, but not from 0 or 1 without gaps; {_WANTED}")
    if start == 0 and not background_name(found[0][2]):
        raise DatasetError(
            f"{path}, line {found[0][0]}: class {found[0][2]!r} has number 0, which is that of background; number from "
            "1, and say with --mask-values what the values in masks mean"
        )
    return [(number, name) for number, _, name in found]
