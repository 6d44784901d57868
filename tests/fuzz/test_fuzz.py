"""The short form of the fuzzers."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.artefacts import fuzz


def test_spoilt_artefacts_are_refused_or_read_as_they_were(tmp_path: Path) -> None:
    found = fuzz(tmp_path, rounds=60, seed=1)
    assert found["faults"] == []
    assert sum(count for name, count in found["outcomes"].items() if name.endswith(": refused")) > 20
