"""Stages that are killed at random moments end as if nothing had been; ``tests.kill`` does more rounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pseudolabel.options import STAGES
from tests.helpers.every_stage import COMMANDS
from tests.kill import rounds, summary

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists() or sys.platform == "win32", reason="reads /proc")


def test_every_stage_is_played() -> None:
    assert set(COMMANDS) == {*STAGES, "run"}


def test_killed_stages_go_on_and_end_with_the_same_digest(tmp_path: Path) -> None:
    found = summary(list(rounds(2, 0, tmp_path, ("refine-crf", "train-cam"))))
    assert (found["equal"], found["files_left"]) == (2, [])
    assert found["kills"] > 0
