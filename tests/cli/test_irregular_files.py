"""Artefacts, weights, settings and folders that are no files: exit 2 and one line, without a wait and a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.cli import program
from tests.helpers.irregular import put

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
CAMS = "wanted cams artefact (made by make-cams, import-cams or refine-affinity)"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "is a named pipe, not a regular file"),
        ("device", "is a device, not a regular file"),
        ("loop", "is a loop of symbolic links"),
    ],
)
def test_an_artefact(tmp_path: Path, kind: str, said: str) -> None:
    cams = put(kind, tmp_path / "cams.h5")
    done = program("search-threshold", str(cams), "--method", "fixed", "--out", str(tmp_path / "t.h5"))
    assert (done.returncode, done.stderr) == (2, f"error: {cams} {said}; {CAMS}\n")


def test_weights_and_settings(tmp_path: Path) -> None:
    weights, settings = put("pipe", tmp_path / "weights.pth"), put("pipe", tmp_path / "settings.yaml")
    words = ["train-cam", "--dataset", "synthetic", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "c.h5")]
    done = program(*words, "--weights", str(weights))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: weights file {weights} is a named pipe, not a regular file; pass --weights FILE.safetensors or a "
        "checkpoint .h5\n",
    )
    done = program(*words, "--config", str(settings))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {settings} is no regular file; wanted a YAML file of settings\n",
    )
