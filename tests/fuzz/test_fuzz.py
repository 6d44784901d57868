"""The short forms of the fuzzers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz.artefacts import fuzz
from tests.fuzz.labels import fuzz_labels


def test_spoilt_artefacts_are_refused_or_read_as_they_were(tmp_path: Path) -> None:
    found = fuzz(tmp_path, rounds=60, seed=1)
    assert found["faults"] == []
    assert sum(count for name, count in found["outcomes"].items() if name.endswith(": refused")) > 20


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork, and no named pipes among files")
def test_spoilt_label_files_are_refused_in_lines_or_read(tmp_path: Path) -> None:
    found = fuzz_labels(tmp_path, rounds=60, seed=1)
    assert found["faults"] == []
    assert sum(count for name, count in found["outcomes"].items() if name.endswith(": refused")) > 20
