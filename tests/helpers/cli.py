"""The program in a process of its own, and the quickest stage there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-m", "pseudolabel"]


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program at 200 columns and without colours."""
    settings = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERMINAL_WIDTH": "200"} | environment
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, env=settings)


def fixed(cams: Path, *words: str, out: str = "threshold.h5") -> list[str]:
    """The command line of search-threshold with thresholds that are given."""
    return ["search-threshold", str(cams), "--method", "fixed", "--out", str(cams.with_name(out)), *words]
