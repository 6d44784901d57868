"""Files of version 1, as they were written before there was another: they open, and say what they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.artefacts.inspection import verify
from pseudolabel.cli.app import main
from tests.helpers import kinds

FILES = Path(__file__).parent / "version_1"


@pytest.mark.parametrize("kind", sorted(path.stem for path in FILES.glob("*.h5")))
def test_a_file_of_version_1_opens_as_it_was_written(kind: str) -> None:
    with h5py.File(FILES / f"{kind}.h5") as file:
        assert file.attrs["encoding-version"] == 1
        assert "seal" not in file.attrs
    with open_artefact(FILES / f"{kind}.h5", kind) as artefact:
        stamped = ("environment", "cost", "digest", "created", "version")
        known = {name: getattr(artefact.header, name) for name in stamped}
        assert artefact.header == replace(kinds.header(kind), **known)
        for name, array in kinds.ARRAYS.get(kind, {}).items():
            stored = artefact.file[name].asstr()[()] if array.dtype == object else artefact.file[name][()]
            np.testing.assert_array_equal(stored, array)
        if kind in kinds.MAPS:
            reader = MapsReader(artefact)
            for index, maps in enumerate(kinds.MAPS[kind]):
                found = reader.maps(index)
                assert all(np.array_equal(found[label], array) for label, array in maps.items())
    assert verify(FILES / f"{kind}.h5") == read_header(FILES / f"{kind}.h5").digest


def test_inspect_says_that_its_attributes_are_not_covered(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FILES / "masks.h5")
    assert main(["inspect", path, "--verify"]) == 0
    said = "format version 1: nothing covers its attributes, such as oracle, protocol, inputs and options"
    assert said in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["inspect", path, "--verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format_version"], found["sealed"], found["verified"]) == (1, False, True)


def test_an_oracle_mark_comes_off_version_1_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = kinds.make("masks", tmp_path / "new.h5")
    old = Path(shutil.copy(FILES / "masks.h5", tmp_path / "old.h5"))
    for path in (old, new):
        with h5py.File(path, "r+") as file:
            file.attrs["oracle"] = "[]"
    assert main(["inspect", str(old), "--verify"]) == 0
    capsys.readouterr()
    for words in ([], ["--verify"]):
        assert main(["inspect", str(new), *words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        said = "was altered: its attributes do not match their seal; make it again"
        assert shown.err == f"error: {new} {said}\n"
