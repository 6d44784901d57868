"""Kill stages at random moments, let the same command go on, and compare what comes out with what no kill has met.

As a script, for as many rounds as wanted, from the root of the repository::

    python -m tests.kill --rounds 20 --out benchmarks/results/kill.json

Each round ends a stage, or ``run``, with SIGKILL, SIGTERM or SIGINT, the process or all of its session, until it gets
through. Then its data must be those of the same stage left alone, by digest; no process may be left over, and no
unfinished file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pseudolabel.artefacts.header import environment
from tests.helpers.every_stage import COMMANDS, command, complete, name_of, outcome, prepare, settings, unfinished

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
}
"""How a process may end by each signal; the negative ones before Python has begun to answer it."""


@dataclass
class Outcome:
    """What a round has met."""

    stage: str
    kills: list[str]
    equal: bool
    left: list[str]


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
    through = code == 0 or "exists already; pass --overwrite" in said  # it was killed after its last write
    assert through, f"exit code {code} of {' '.join(words)}: {said}"
    return None


def play(stage: str, inputs: Path, folder: Path, rng: random.Random, whole: float, made: str) -> Outcome:
    """Kill a stage until it gets through.

    Args:
        stage: A key of ``COMMANDS``.
        inputs: Where ``prepare`` has been.
        folder: An empty one, for its output.
        rng: Where moments and signals come from.
        whole: Seconds that it takes when it is left alone.
        made: What it then makes, as ``outcome`` says it.
    """
    out = folder / name_of(stage)
    kills: list[str] = []
    while True:
        number, everybody = rng.choice(SIGNALS), rng.random() < 0.5
        patience = whole * rng.uniform(0.2, 1.0) * (1 + len(kills) / 8)
        code = kill_once(command(stage, inputs, out), number, patience, everybody=everybody)
        if code is None:
            break
        kills.append(f"{number.name}{' to all' if everybody else ''} after {patience:.2f} s")
    return Outcome(stage, kills, outcome(stage, out) == made, unfinished(folder))


def rounds(
    count: int,
    seed: int,
    folder: Path,
    stages: Sequence[str] = tuple(COMMANDS),
    *,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Play rounds, the stages in turn.

    Args:
        count: How many.
        seed: Of moments and signals.
        folder: An empty one.
        stages: Keys of ``COMMANDS``.
        enough: Asked before each round whether to stop all the same.
    """
    rng = random.Random(seed)
    prepare(folder, stages)
    alone: dict[str, tuple[float, str]] = {}
    for number in range(count):
        if enough():
            return
        stage = stages[number % len(stages)]
        if stage not in alone:
            out = folder / f"alone-{stage}" / name_of(stage)
            began = time.monotonic()
            complete(command(stage, folder, out))
            alone[stage] = time.monotonic() - began, outcome(stage, out)
        place = folder / str(number)
        place.mkdir()
        yield play(stage, folder, place, rng, *alone[stage])
        shutil.rmtree(place)


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


def _later_than(end: float) -> bool:
    return time.monotonic() > end


def main() -> None:
    """Play, and write the figures after each round, so that those of a long run that is ended are not lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=26, help="how many stages to get through")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so many")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    words = parser.parse_args()
    start, played = time.monotonic(), list[Outcome]()
    line = f"python -m tests.kill --rounds {words.rounds} --seed {words.seed} --seconds {words.seconds:g}"
    about = {"command": line, "environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        enough = partial(_later_than, start + words.seconds)
        for one in rounds(words.rounds, words.seed, Path(folder), enough=enough):
            played.append(one)
            found = {**about, **summary(played)}
            if words.out:
                words.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    sys.exit(found["equal"] != found["rounds"] or bool(found["files_left"]))


if __name__ == "__main__":
    main()
