"""What the package needs of the system: nothing that Windows lacks. Windows itself was never run, only simulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.artefacts import open_artefact, read_header
from pseudolabel.artefacts.header import path_from
from pseudolabel.runtime.usage import used
from tests.test_structure import MODULES

SCRIPT = Path(__file__).parents[1] / "helpers/without_posix.py"


def test_every_module_and_a_chain_of_stages_do_without_what_only_posix_has(multi: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), str(multi)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, refusal, locks, cost = json.loads(done.stdout)
    others = {"pseudolabel", "pseudolabel.cli", "pseudolabel.__main__", "pseudolabel.pairwise.triton_filter"}
    assert set(found) == set(MODULES) - others
    assert refusal == f"{multi}/journal is being written by another run; wait for it, or choose another --out"
    assert locks == ["byte 2147483646, 1, mode 2"]
    assert cost["cpu_seconds"] > 0
    assert cost["peak_memory_bytes"] > 2**26
    assert read_header(multi / "portable/masks.h5").digest == read_header(multi / "four/masks.h5").digest
    with open_artefact(multi / "portable.h5", "scores") as here, open_artefact(multi / "five.h5", "scores") as usual:
        np.testing.assert_array_equal(here.file["confusion"][:], usual.file["confusion"][:])


def test_processor_time_and_memory_are_those_of_this_process_and_of_its_ended_children() -> None:
    before, _ = used()
    begin = time.process_time()
    while time.process_time() - begin < 0.1:
        pass
    own, _ = used()
    assert own - before > 0.09
    code = "import time\nmemory = bytes(2**20) * 700\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    both, peak = used()
    assert both - own > 0.25
    assert peak > 700 * 2**20


def test_paths_are_relative_and_absolute_only_where_they_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert path_from(tmp_path / "a", tmp_path / "b/c.h5") == "../b/c.h5"

    def another_drive(path: Path, start: Path) -> str:
        raise ValueError(f"path is on mount 'C:', start on mount 'D:': {path}, {start}")

    monkeypatch.setattr(os.path, "relpath", another_drive)
    assert path_from(tmp_path / "a", tmp_path / "b/c.h5") == (tmp_path / "b/c.h5").as_posix()
