"""Spoil and read artefacts for as many rounds as asked; the figures go to benchmarks/results/fuzz_artefacts.json.

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

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz_artefacts.json"


def main() -> int:
    """Run, write the figures, and return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000, help="files to spoil (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after so many, whatever the rounds")
    parser.add_argument("--keep", type=Path, help="folder into which files that show a fault are copied")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(Path(place), arguments.rounds, arguments.seed, seconds=arguments.seconds, keep=arguments.keep)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    words = f"python -m tests.fuzz --rounds {arguments.rounds} --seed {arguments.seed}"
    words += f" --seconds {arguments.seconds:g}" if arguments.seconds else ""
    text = json.dumps({"command": words, "seed": arguments.seed, "commit": commit.strip(), **found}, indent=2)
    arguments.results.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
