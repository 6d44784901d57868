"""A training meets a full disk, says so in one line, and goes on once there is space; ``tests.disk_full`` does more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.disk_full import can_mount, try_all
from tests.helpers.every_stage import prepare

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system in memory")


def test_a_training_on_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("this process may not mount file systems")
    prepare(tmp_path / "inputs", ("train-cam",))
    (met,) = try_all(tmp_path / "inputs", tmp_path, ("train-cam",), (0.5,))
    assert met.good, met
