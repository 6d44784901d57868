"""Kill stages at random moments, let the same command go on, and compare what comes out with what no kill has met.

As a script, for as many rounds as wanted, from the root of the repository::

    python -m tests.kill --rounds 20 --out benchmarks/results/kill.json

Each round ends a stage with SIGKILL, SIGTERM or SIGINT, the process or all of its session, until it gets through. Then
the digest of its data must be that of the same stage left alone; no process may be left over, and no unfinished file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.artefacts import read_header
from pseudolabel.artefacts.header import environment

PROGRAM = (sys.executable, "-m", "pseudolabel")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
}
"""How a process may end by each signal; the negative ones before Python has begun to answer it."""

TRAINING = (
    "--backbone test_vit --no-pretrained --epochs 3 --batch-size 4 --crop 64 --save-every 1 --device cpu --workers 2"
)
STAGES = {
    "refine-crf": "refine-crf {root}/../cams.h5 --threshold {root}/../threshold.h5 --iterations 150 --workers 2",
    "refine-par": "refine-par {root}/../cams.h5 --threshold {root}/../threshold.h5 --iterations 300 --workers 2",
    "search-crf": "search-crf {root}/../cams.h5 --threshold {root}/../threshold.h5 --trials 2 --images 8 --workers 2",
    "export-masks": "export-masks {root}/../cams.h5 --threshold {root}/../threshold.h5 --workers 2",
    "train-cam": f"train-cam --dataset voc --root {{root}} {TRAINING}",
}
"""Commands with worker processes, but for ``--out``."""


@dataclass
class Outcome:
    """What a round has met."""

    stage: str
    kills: list[str]
    codes: list[int]
    equal: bool
    left: list[str]


def prepare(folder: Path) -> Path:
    """A small data set and CAMs of it; returns the root of the data set."""
    root = folder / "data"
    for words in (
        f"data synth --out {root} --train 24 --val 4 --size 96",
        f"train-cam --dataset voc --root {root} {TRAINING} --out {folder}/cam.h5 --quiet",
        f"make-cams {folder}/cam.h5 --device cpu --out {folder}/cams.h5 --quiet",
        f"search-threshold {folder}/cams.h5 --method fixed --out {folder}/threshold.h5 --quiet",
    ):
        subprocess.run([*PROGRAM, *words.split()], check=True, capture_output=True, env=settings())
    return root


def settings() -> dict[str, str]:
    """The environment of every command: one thread, so that sums are rounded alike."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def artefact(stage: str, out: Path) -> Path:
    """The file whose digest counts."""
    return out / "masks.h5" if stage == "export-masks" else out


def command(stage: str, root: Path, out: Path) -> list[str]:
    """The words of a stage."""
    return [*PROGRAM, *STAGES[stage].format(root=root).split(), "--quiet", "--out", str(out)]


def children(session: int) -> list[int]:
    """The processes of a session that still run, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def kill_once(words: Sequence[str], number: signal.Signals, after: float, *, everybody: bool) -> int | None:
    """Run a command and kill it after a time; returns its exit code, or None if it was through before."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=settings(), start_new_session=True
    )
    said = ""
    try:
        _, said = process.communicate(timeout=after)
        code = process.returncode
    except subprocess.TimeoutExpired:
        (os.killpg if everybody else os.kill)(process.pid, number)
        code = process.wait(60)
        end = time.monotonic() + 30
        while left := children(process.pid):
            assert time.monotonic() < end, f"{left} outlive {' '.join(words)} by {number.name}"
            time.sleep(0.05)
        if code == 0:
            return None
        assert code in CODES[number], f"exit code {code} after {number.name} of {' '.join(words)}"
        return code
    assert code == 0, f"exit code {code} of {' '.join(words)}: {said}"
    return None


def play(stage: str, root: Path, folder: Path, rng: random.Random, whole: float, digest: str) -> Outcome:
    """Kill a stage until it gets through.

    Args:
        stage: A key of ``STAGES``.
        root: Of the data set.
        folder: An empty one, for its output.
        rng: Where moments and signals come from.
        whole: Seconds that it takes when it is left alone.
        digest: What its data then have.
    """
    out = folder / ("out" if stage == "export-masks" else "out.h5")
    kills, codes = [], []
    while True:
        number, everybody = rng.choice(SIGNALS), rng.random() < 0.5
        patience = whole * rng.uniform(0.2, 1.0) * (1 + len(kills) / 4)
        code = kill_once(command(stage, root, out), number, patience, everybody=everybody)
        if code is None:
            break
        kills.append(f"{number.name}{' to all' if everybody else ''} after {patience:.2f} s")
        codes.append(code)
        if artefact(stage, out).exists():  # it was killed between its last write and its end
            break
    left = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith((".partial", ".training"))
    )
    return Outcome(stage, kills, codes, read_header(artefact(stage, out)).digest == digest, left)


def rounds(count: int, seed: int, folder: Path, stages: Sequence[str] = tuple(STAGES)) -> list[Outcome]:
    """Play rounds, the stages in turn.

    Args:
        count: How many.
        seed: Of moments and signals.
        folder: An empty one.
        stages: Keys of ``STAGES``.
    """
    root, rng = prepare(folder), random.Random(seed)
    alone: dict[str, tuple[float, str]] = {}
    outcomes = []
    for number in range(count):
        stage = stages[number % len(stages)]
        if stage not in alone:
            out = folder / f"alone-{stage}" / "out.h5"
            began = time.monotonic()
            subprocess.run(command(stage, root, out), check=True, capture_output=True, env=settings())
            alone[stage] = time.monotonic() - began, read_header(artefact(stage, out)).digest
        place = folder / str(number)
        place.mkdir()
        outcomes.append(play(stage, root, place, rng, *alone[stage]))
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of all rounds."""
    kills = Counter(kill.split()[0] for outcome in outcomes for kill in outcome.kills)
    return {
        "rounds": len(outcomes),
        "kills": sum(kills.values()),
        "by_signal": dict(sorted(kills.items())),
        "by_stage": {
            stage: {
                "rounds": sum(outcome.stage == stage for outcome in outcomes),
                "kills": sum(len(outcome.kills) for outcome in outcomes if outcome.stage == stage),
                "equal": sum(outcome.equal for outcome in outcomes if outcome.stage == stage),
            }
            for stage in dict.fromkeys(outcome.stage for outcome in outcomes)
        },
        "equal": sum(outcome.equal for outcome in outcomes),
        "files_left": sorted({name for outcome in outcomes for name in outcome.left}),
    }


def main() -> None:
    """Play, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=12, help="how many stages to get through")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = summary(rounds(words.rounds, words.seed, Path(folder)))
    found = {
        "command": f"python -m tests.kill --rounds {words.rounds} --seed {words.seed}",
        "environment": environment(),
        **found,
    }
    print(json.dumps(found, indent=2))
    if words.out:
        words.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(found["equal"] != found["rounds"] or bool(found["files_left"]))


if __name__ == "__main__":
    main()
