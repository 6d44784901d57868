"""Every benchmark script starts and explains itself."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.cosa_step import plain_look
from pseudolabel.cosa.teacher import teacher_forward

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "benchmarks"
SHARED = {"steps", "trials", "__init__"}
SCRIPTS = sorted(
    f"benchmarks.{path.parent.name}.{path.stem}" for path in FOLDER.glob("*/*.py") if path.stem not in SHARED
)


def run(script: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a benchmark says in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", script, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_there_are_benchmarks() -> None:
    speed = {f"benchmarks.speed.{name}" for name in ("make_cams", "cams_size", "memory", "refine_crf", "startup")}
    assert {*speed, "benchmarks.quality.voc_mini"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str, tmp_path: Path) -> None:
    done = run(script, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {script}")
    assert len(re.findall(rf"python -m {re.escape(script)}\b", done.stdout)) > 1  # how it is run


def test_the_plain_step_takes_what_the_teachers_forward_pass_takes() -> None:
    plain, real = (inspect.signature(function).parameters for function in (plain_look, teacher_forward))
    assert set(real) <= set(plain)


def test_a_run_from_nothing_starts_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/cam.h5").write_bytes(b"")
    words = ["--root", "nowhere", "--work", "work", "--results", "figures.json"]
    done = run("benchmarks.quality.voc_mini", *words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "work is not an empty folder; pass another --work, or remove it\n"
    assert not (tmp_path / "figures.json").exists()


def test_the_lists_of_images_with_masks_are_of_train() -> None:
    train = set((FOLDER / "quality/voc_mini_lists/train.txt").read_text().split())
    lists = [path.read_text().split() for path in sorted((FOLDER / "quality/semi_lists").glob("*.txt"))]
    assert [(len(ids), len(set(ids))) for ids in lists] == [(100, 100)] * 3
    assert all(set(ids) <= train for ids in lists)
    assert len({tuple(ids) for ids in lists}) == 3


def test_the_lists_of_voc_mini_are_those_of_its_folder() -> None:
    lists = {split: (FOLDER / f"quality/voc_mini_lists/{split}.txt").read_text().split() for split in ("train", "val")}
    assert {split: len(set(ids)) for split, ids in lists.items()} == {"train": 500, "val": 100}
    assert not set(lists["train"]) & set(lists["val"])
    root = REPOSITORY.parent / "shared/voc-mini/ImageSets/Segmentation"
    if not root.is_dir():
        pytest.skip("voc-mini is not beside the repository")
    assert {split: (root / f"{split}.txt").read_text().split() for split in lists} == lists
