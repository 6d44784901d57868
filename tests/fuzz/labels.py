"""Spoilt label files of every format: each is read, or refused in lines that name it, in little time and memory."""

from __future__ import annotations

import collections
import json
import multiprocessing
import random
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from tests.fuzz.label_mutations import spoil
from tests.fuzz.label_readers import serve
from tests.fuzz.label_sets import FORMATS, make, words

MEMORY = 1 << 30
_GOOD = ("refused", "the same", "accepted")


def fuzz_labels(
    folder: Path, rounds: int, seed: int, *, seconds: float | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """Spoil and read; the arguments and what is returned are those of ``artefacts.fuzz``."""
    rng, start = random.Random(seed), time.perf_counter()
    bases = folder / "bases"
    make(bases)
    (folder / "home").mkdir()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, folder), daemon=True)
    process.start()
    theirs.close()
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    slowest, most, done = 0.0, 0, 0
    clean: dict[str, dict[str, Any]] = {}
    try:
        for name, form in FORMATS.items():
            (folder / "out.h5").unlink(missing_ok=True)
            mine.send(words(form, bases / form.base, folder / "out.h5"))
            clean[name] = mine.recv()
            wanted = "refused" if "16 bits" in name else "the same"
            assert _judge(clean[name], clean[name], alike=False) == wanted, (name, clean[name])
        limit = max(found["peak"] for found in clean.values()) + MEMORY
        while done < rounds and (seconds is None or time.perf_counter() - start < seconds):
            name = rng.choice(list(FORMATS))
            form = FORMATS[name]
            path = bases / form.base / form.file
            whole = path.read_bytes()
            (folder / "out.h5").unlink(missing_ok=True)
            how, damaged = spoil(path, form.kind, rng)
            before = _tree(folder)
            mine.send(words(form, bases / form.base, folder / "out.h5"))
            found = mine.recv()
            outcome = _judge(found, clean[name], alike=form.alike and damaged)
            outcome = "memory" if found["peak"] > limit else outcome
            outcome = "written elsewhere" if _tree(folder) != before else outcome
            outcomes[f"{how}: {outcome}"] += 1
            if outcome not in _GOOD:
                faults.append(f"round {done} ({name}, {how}): {outcome}: {_described(found)}")
                if keep is not None and path.is_file():
                    shutil.copy(path, keep / f"fault-{seed}-{done}-{path.name}")
            _put_back(path, whole)
            slowest, most, done = max(slowest, found["seconds"]), max(most, found["peak"]), done + 1
    finally:
        process.kill()
        process.join()
    return {
        "rounds": done,
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_seconds": round(slowest, 2),
        "most_megabytes_above_clean": max(0, most + MEMORY - limit) >> 20,
        "faults": faults,
    }


def _put_back(path: Path, whole: bytes) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    path.write_bytes(whole)


def _tree(folder: Path) -> list[tuple[str, int, int]]:
    """All that lies in the folder, less where output belongs."""
    found = []
    for path in folder.rglob("*"):
        if not re.match(r"said\.|out\.h5", path.name):
            about = path.lstat()
            folder_only = stat.S_ISDIR(about.st_mode)  # a temporary file, gone again, is no fault
            found.append((str(path), *((0, 0) if folder_only else (about.st_size, about.st_mtime_ns))))
    return sorted(found)


def _described(found: dict[str, Any]) -> str:
    return " | ".join(str(found[name])[-300:] for name in ("code", "raised", "said", "use", "shown"))


def _judge(found: dict[str, Any], clean: dict[str, Any], *, alike: bool) -> str:
    if found["code"] in ("crash", "time"):
        return str(found["code"])
    lines = found["said"].splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    if found["raised"] or found["code"] not in (0, 2) or re.search(r"[\x00-\x09\x0b-\x1f\x7f]", found["said"]):
        return "fault"
    if found["code"] == 0:
        if len(warnings) < len(lines) or found["use"]:
            return "fault"
        return "the same" if found["result"] == clean["result"] else "another result" if alike else "accepted"
    errors = [line for line in lines if line not in warnings]
    problems = json.loads(found["shown"])["problems"] if found["shown"] else []
    one_line = len(errors) == 1 and errors[0].startswith("error: ") and not problems
    listed = not errors and problems and not any("\n" in line for line in problems)
    return "refused" if (one_line or listed) and "\n" not in found["use"] else "fault"
