"""Let every stage meet a full disk, and go on once there is space: one line, nothing half-written, nothing lost.

As a script, where file systems may be mounted, from the root of the repository::

    python -m tests.disk_full --out benchmarks/results/disk_full.json

Each output goes to a small file system in memory that holds a part of it only. The stage must end with exit code 1 and
one line that says so, and nothing may stand under the name of the output. Once the file system has been made larger,
the same command must make what it makes on a large one, and leave nothing unfinished.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pseudolabel.artefacts.header import environment
from tests.helpers.every_stage import (
    COMMANDS,
    FOLDERS,
    command,
    complete,
    name_of,
    outcome,
    prepare,
    settings,
    unfinished,
)

PAGE = 4096
AMPLE = 1 << 30
FULL = "No space left on device"


@dataclass
class Met:
    """What a stage did on a full disk.

    Attributes:
        stage: Its name.
        space: Bytes that there were.
        needed: Bytes that its output takes.
        code: Exit code.
        said: Its lines on standard error, less the folder.
        complete: What stood under its final name all the same.
        went_on: Whether it then made the same as on a large disk.
        left: What was unfinished in the end.
    """

    stage: str
    space: int
    needed: int
    code: int
    said: list[str]
    complete: list[str]
    went_on: bool
    left: list[str]

    @property
    def good(self) -> bool:
        """Whether all promises were kept."""
        one_line = len(self.said) == 1 and self.said[0].startswith("error: ") and FULL in self.said[0]
        nothing = set(self.complete) <= {"soft.h5"}  # what predict-masks finishes before its masks, and goes on from
        return self.code == 1 and one_line and nothing and self.went_on and not self.left


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at an empty folder.

    Raises:
        OSError: This process may not mount any.
    """
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if (done := subprocess.run(words, capture_output=True, text=True, check=False)).returncode:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount file systems."""
    try:
        with small_disk(folder / "trial", PAGE):
            return True
    except OSError:
        return False


def used(folder: Path) -> int:
    """Bytes that all files of a folder take, in whole pages."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def meet(stage: str, inputs: Path, place: Path, share: float, needed: int, made: str) -> Met:
    """Run a stage on a disk with space for a share of its output, and again once there is enough.

    Args:
        stage: A key of ``COMMANDS``.
        inputs: Where ``prepare`` has been.
        place: An empty folder, where the disk is mounted.
        share: Of what is needed.
        needed: Bytes that the output takes.
        made: What the stage makes on a large disk, as ``outcome`` says it.
    """
    space = max(PAGE, int(needed * share) // PAGE * PAGE)
    out = place / name_of(stage)
    words = command(stage, inputs, out)
    with small_disk(place, space):
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=settings())
        said = [line.replace(f"{place}/", "") for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        names = _final(stage, out)
        subprocess.run(["mount", "-o", f"remount,size={AMPLE}", str(place)], check=True)
        again = subprocess.run(words, capture_output=True, text=True, check=False, env=settings())
        went_on = again.returncode == 0 and outcome(stage, out) == made
        return Met(stage, space, needed, done.returncode, said, names, went_on, unfinished(place))


def _final(stage: str, out: Path) -> list[str]:
    """What stands under a final name before a stage is through. Of ``run``, finished stages do, by right."""
    if stage == "run" or not out.exists():
        return []
    if stage not in FOLDERS:
        return [out.name]
    files = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if not any(part.endswith(".partial") for part in path.parts))


def try_all(inputs: Path, folder: Path, stages: Sequence[str], shares: Sequence[float]) -> Iterator[Met]:
    """Try stages, each with several shares of the space that it needs.

    Args:
        inputs: Where ``prepare`` has been.
        folder: An empty one.
        stages: Keys of ``COMMANDS``.
        shares: Each above 0 and below 1.
    """
    for stage in stages:
        alone = folder / f"alone-{stage}"
        complete(command(stage, inputs, alone / name_of(stage)))
        made = outcome(stage, alone / name_of(stage))
        for number, share in enumerate(shares):
            yield meet(stage, inputs, folder / f"{stage}-{number}", share, used(alone), made)


def main() -> int:
    """Try all, write the figures after each, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.9], help="of the space that is needed")
    parser.add_argument("--stages", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--inputs", type=Path, help="folder of the inputs, which are made there unless they are")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    start, met = time.monotonic(), list[Met]()
    with tempfile.TemporaryDirectory() as folder:
        if os.name != "posix" or not can_mount(Path(folder)):
            sys.exit("this process may not mount file systems")
        inputs = given.inputs or Path(folder)
        if not (inputs / "pipeline.yaml").exists():
            prepare(inputs, given.stages)
        for one in try_all(inputs, Path(folder), given.stages, given.shares):
            met.append(one)
            print(f"{time.monotonic() - start:6.0f} s  {'good' if one.good else 'BROKEN'}  {one}", flush=True)
            if given.out:
                given.out.write_text(json.dumps(summary(met, given), indent=2) + "\n")
    return 0 if all(one.good for one in met) else 1


def summary(met: Sequence[Met], given: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    shares = " ".join(f"{share:g}" for share in given.shares)
    return {
        "command": f"python -m tests.disk_full --shares {shares} --stages {' '.join(given.stages)}",
        "environment": environment(),
        "stages": len({one.stage for one in met}),
        "full_disks": len(met),
        "good": sum(one.good for one in met),
        "met": [asdict(one) for one in met],
    }


if __name__ == "__main__":
    sys.exit(main())
