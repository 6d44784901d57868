"""The mark [code: NAME] means that the released code was run beside ours, so every NAME is an entry of the results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.options import TrainCosaOptions
from pseudolabel.runs.pipeline import find_config, read_pipeline

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "released_code.json"
MARK = re.compile(r"(?<!\w)\[code\b([^\]]*)\]")
NAMES = re.compile(r": ([a-z0-9-]+(?:, [a-z0-9-]+)*)")
LEGEND = ": NAME"


def entries() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(RESULTS.read_text())["entries"]
    return found


def texts() -> Iterator[tuple[str, str]]:
    """Documents, recipes and sources by their path."""
    patterns = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "configs/**/*.yaml", "pseudolabel/**/*.py")
    for pattern in patterns:
        for path in sorted(REPOSITORY.glob(pattern)):
            if path.name != "CHANGELOG.md":  # what was true of a release stays as it is
                yield str(path.relative_to(REPOSITORY)), path.read_text()


def marks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line, mark and the entries that it names; none where it is not of the form."""
    for found in MARK.finditer(text):
        named = NAMES.fullmatch(" ".join(found[1].split()))
        if found[1] != LEGEND:
            yield text.count("\n", 0, found.start()) + 1, found[0], named[1].split(", ") if named else []


def faults(text: str, known: set[str]) -> list[str]:
    found = []
    for line, mark, names in marks(text):
        unknown = [name for name in names if name not in known]
        if not names or unknown:
            found.append(f"line {line}: {mark}")
    return found


def test_every_mark_names_entries_that_are_equal() -> None:
    equal = {name for name, entry in entries().items() if entry["equal"]}
    found = [f"{path}, {fault}" for path, text in texts() for fault in faults(text, equal)]
    assert not found, "\n".join(found)


def test_every_equal_entry_is_named_by_a_mark() -> None:
    named = {name for _, text in texts() for _, _, names in marks(text) for name in names}
    assert {name for name, entry in entries().items() if entry["equal"]} <= named


@pytest.mark.parametrize("name", sorted(entries()))
def test_an_entry_says_what_was_compared_and_is_equal_only_within_what_is_allowed(name: str) -> None:
    entry = entries()[name]
    assert set(entry) - {"differs", "note"} == {"ours", "released", "inputs", "measured", "allowed", "equal"}
    measured, allowed = entry["measured"], entry["allowed"]
    assert isinstance(measured, dict)
    assert isinstance(allowed, float)
    assert measured
    assert entry["equal"] is (max(measured.values()) <= allowed)
    repositories = json.loads(RESULTS.read_text())["commits"]
    assert any(repository in str(entry["released"]) for repository in repositories)


def test_a_mark_without_an_entry_would_be_found() -> None:
    text = "a [code: NAME]\nb [code]\nc [code: cams,\npooling] d [code: cam] e [code: timm's] f [coded] g[code == 1]"
    assert faults(text, {"cams", "pooling"}) == ["line 2: [code]", "line 4: [code: cam]", "line 4: [code: timm's]"]


@pytest.mark.parametrize(("name", "steps"), [("voc/cosa-released", 6001), ("coco/cosa-released", 10001)])
def test_the_released_recipes_learn_from_tags_alone_as_long_as_the_released_code(name: str, steps: int) -> None:
    """It goes on to the step whose number is the warm-up's, counted from 0."""
    options = read_pipeline(find_config(name)).steps[0].options
    assert isinstance(options, TrainCosaOptions)
    assert options.steps is not None
    assert int(options.classification * options.steps) == steps
