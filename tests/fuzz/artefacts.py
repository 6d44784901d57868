"""Spoilt artefacts of every kind: each is read as it was, or refused in one line, in little time and memory."""

from __future__ import annotations

import collections
import multiprocessing
import random
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import spoil_bytes, spoil_contents
from tests.fuzz.readers import serve
from tests.helpers import kinds

SECONDS = 20
MEMORY = 1 << 30
VERSION_1 = Path(__file__).parents[1] / "artefacts" / "version_1"


class Reader:
    """A process that reads files, and is started anew when one of them has ended it."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None

    def read(self, path: Path) -> dict[str, Any]:
        """What ``readers.read`` found, or ``code`` ``crash`` or ``time``; and ``seconds``."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._mine, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        start = time.perf_counter()
        self._mine.send(path)
        try:
            in_time = self._mine.poll(SECONDS)
            found = self._mine.recv() if in_time else {"code": "time", "said": "", "result": ""}
        except EOFError:
            found = {"code": "crash", "said": "", "result": ""}
        if found["code"] in ("time", "crash"):
            self.end()
        return {"peak": 0, **found, "seconds": time.perf_counter() - start}

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def fuzz(
    folder: Path, rounds: int, seed: int, *, seconds: float | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """Spoil and read.

    Args:
        folder: An empty one, where the files are made.
        rounds: How many.
        seed: Of the mutations.
        seconds: After which to stop, whatever the rounds.
        keep: Where files that show a fault are put.

    Returns:
        ``rounds`` that were done; ``outcomes``: how often each came of each mutation; ``slowest`` in seconds;
        ``faults``: what was read otherwise, in words.
    """
    rng, reader, start = random.Random(seed), Reader(), time.perf_counter()
    bases = {f"{kind} 2": kinds.make(kind, folder / f"{kind}.h5") for kind in kinds.STAGES}
    bases |= {f"{path.stem} 1": path for path in VERSION_1.glob("*.h5")}
    clean = {name: reader.read(path) for name, path in bases.items()}
    assert all(found["code"] == 0 for found in clean.values()), clean
    most = max(found["peak"] for found in clean.values()) + MEMORY
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    slowest, done = 0.0, 0
    try:
        while done < rounds and (seconds is None or time.perf_counter() - start < seconds):
            name = rng.choice(sorted(bases))
            path = Path(shutil.copy(bases[name], folder / "spoilt.h5"))
            path.chmod(0o644)
            by_hand = name.endswith("2") and rng.random() < 0.4
            how = (spoil_contents if by_hand else spoil_bytes)(path, rng)
            found = reader.read(path)
            outcome = _judge(found, clean[name]["result"], most, alike=name.endswith("2") and not by_hand)
            outcomes[f"{how}: {outcome}"] += 1
            if outcome not in ("refused", "the same", "accepted"):
                if keep is not None:
                    shutil.copy(path, keep / f"fault-{seed}-{done}.h5")
                faults.append(f"round {done} ({name}, {how}): {outcome}: {found['code']} {found['said'][:300]}")
            slowest, done = max(slowest, found["seconds"]), done + 1
    finally:
        reader.end()
    return {
        "rounds": done,
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_seconds": round(slowest, 2),
        "faults": faults,
    }


def _judge(found: dict[str, Any], clean: str, most: int, *, alike: bool) -> str:
    if found["peak"] > most:
        return "memory"
    if found["code"] == 0:
        return "the same" if found["result"] == clean else "another result" if alike else "accepted"
    one_line = found["said"].startswith("error: ") and found["said"].count("\n") == 1
    return "refused" if found["code"] == 2 and one_line else "fault"
