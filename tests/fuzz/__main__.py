"""Spoil and read artefacts and label files for as many rounds as asked; figures go to benchmarks/results/fuzz.json.

python -m tests.fuzz --rounds 20000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.artefacts import fuzz
from tests.fuzz.labels import fuzz_labels

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.json"

PARTS = {"artefacts": fuzz, "labels": fuzz_labels}


def main() -> int:
    """Run, write the figures, and return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000, help="files of each part to spoil (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop each part after so many, whatever the rounds")
    parser.add_argument("--only", choices=PARTS, help="the figures of the other part stay as they are")
    parser.add_argument("--keep", type=Path, help="folder into which files that show a fault are copied")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the figures")
    given = parser.parse_args()
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    faults = 0
    for part in (given.only,) if given.only else PARTS:
        with tempfile.TemporaryDirectory() as place:
            found = PARTS[part](Path(place), given.rounds, given.seed, seconds=given.seconds, keep=given.keep)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        words = f"python -m tests.fuzz --only {part} --rounds {given.rounds} --seed {given.seed}"
        words += f" --seconds {given.seconds:g}" if given.seconds else ""
        results[part] = {"command": words, "seed": given.seed, "commit": commit.stdout.strip(), **found}
        print(json.dumps(results[part], indent=2))
        given.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        faults += len(found["faults"])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
