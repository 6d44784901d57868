"""Start-up: wall time of ``pseudolabel --help`` and of usage errors, beside that of an empty Python program.

    python -m benchmarks.speed.startup --rounds 10

The installed command of this Python's environment is measured, in turn with ``python -c pass``; a first round, which
may find the files not yet in the system's cache, does not count. The target is a median below 0.5 s for the help and
for usage errors, with nothing else running; the longest help, that of train-cam, is measured beside them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

from benchmarks.common import alternate, conditions, make_parser, report, summary, target

COMMANDS = {
    "help": (["--help"], 0),
    "help of train-cam": (["train-cam", "--help"], 0),
    "unknown flag": (["make-cams", "cam.h5", "--no-such-flag"], 2),
    "wrong value": (["train-cam", "--epochs", "none", "--out", "cam.h5"], 2),
}
"""Words after ``pseudolabel``, and the exit code that they must lead to."""


def main() -> None:
    """Time every command and an empty Python program in turn, and report."""
    arguments = parse()
    found = conditions()
    program = Path(sysconfig.get_path("scripts")) / "pseudolabel"
    if not program.exists():
        raise SystemExit(f"there is no {program}; run 'pip install -e .' first")
    functions = {"python -c pass": partial(run, [sys.executable, "-c", "pass"], 0)}
    for name, (words, code) in COMMANDS.items():
        functions[name] = partial(run, [str(program), *words], code)
    seconds = {name: times[1:] for name, times in alternate(functions, arguments.rounds + 1).items()}
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    empty = medians["python -c pass"]
    figures = {
        "rounds": arguments.rounds,
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "times_python_c_pass": {name: round(medians[name] / empty, 2) for name in COMMANDS},
    }
    targets = [target(f"seconds, {name}", medians[name], "< 0.5") for name in COMMANDS if name != "help of train-cam"]
    report(__file__, arguments, found, figures, targets)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=10, help="of all in turn (default: %(default)s)")
    return parser.parse_args()


def run(words: list[str], code: int) -> None:
    """Run a command and make sure that it ended as it should."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(f"{words} ended with {done.returncode}, wanted {code}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
