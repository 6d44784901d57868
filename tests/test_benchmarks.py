"""Every benchmark script starts and explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHARED = {"common.py", "steps.py", "trials.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in SHARED)


def test_there_are_benchmarks() -> None:
    assert {"make_cams.py", "cams_size.py", "memory.py", "refine_crf.py", "startup.py", "voc_mini.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")
    assert f"python benchmarks/{script}" in done.stdout  # how it is run


def test_a_run_from_nothing_starts_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/cam.h5").write_bytes(b"")
    words = ["--root", "nowhere", "--work", "work", "--results", "figures.json"]
    done = subprocess.run(
        [sys.executable, FOLDER / "voc_mini.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "work is not an empty folder; pass another --work, or remove it\n"
    assert not (tmp_path / "figures.json").exists()


def test_the_lists_of_voc_mini_are_those_of_its_folder() -> None:
    lists = {split: (FOLDER / f"voc_mini_lists/{split}.txt").read_text().split() for split in ("train", "val")}
    assert {split: len(set(ids)) for split, ids in lists.items()} == {"train": 500, "val": 100}
    assert not set(lists["train"]) & set(lists["val"])
    root = FOLDER.parents[1] / "shared/voc-mini/ImageSets/Segmentation"
    if not root.is_dir():
        pytest.skip("voc-mini is not beside the repository")
    assert {split: (root / f"{split}.txt").read_text().split() for split in lists} == lists
