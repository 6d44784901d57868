"""Start-up: wall time of help and of usage errors, beside that of importing typer, rich and pydantic.

    python -m benchmarks.speed.startup --rounds 30

The installed command of this Python's environment is measured, in turn with a Python program that only imports the
three packages, and with ``python -c pass``. A ratio is the median of those of single rounds, so that what else the
machine does meets both sides. A first round, which may have to compile modules and to read files into the system's
cache, does not count. The targets: the overview and the help of train-cam take at most twice what the imports take;
help and usage errors take less than 0.5 s with nothing else running.
"""

from __future__ import annotations

import argparse
import os
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

BASES = {"python -c pass": "pass", "imports": "import typer, rich, pydantic"}
"""What the commands are compared with."""


def main() -> None:
    """Time every command and the bases in turn, and report."""
    arguments = parse()
    found = conditions()
    program = Path(sysconfig.get_path("scripts")) / "pseudolabel"
    if not program.exists():
        raise SystemExit(f"there is no {program}; run 'pip install -e .' first")
    functions = {name: partial(run, [sys.executable, "-c", code], 0) for name, code in BASES.items()}
    for name, (words, code) in COMMANDS.items():
        functions[name] = partial(run, [str(program), *words], code)
    seconds = {name: times[1:] for name, times in alternate(functions, arguments.rounds + 1).items()}
    ratios = {base: {name: ratio(seconds[name], seconds[base]) for name in COMMANDS} for base in BASES}
    figures = {
        "rounds": arguments.rounds,
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "times_imports": {name: round(value, 2) for name, value in ratios["imports"].items()},
        "times_python_c_pass": {name: round(value, 2) for name, value in ratios["python -c pass"].items()},
    }
    targets = [
        target(f"times importing typer, rich and pydantic, {name}", ratios["imports"][name], "<= 2")
        for name in ("help", "help of train-cam")
    ]
    targets += [target(f"seconds, {name}", statistics.median(seconds[name]), "< 0.5") for name in COMMANDS]
    report(__file__, arguments, found, figures, targets)


def ratio(times: list[float], bases: list[float]) -> float:
    """The median of the ratios of single rounds."""
    return statistics.median(time / base for time, base in zip(times, bases, strict=True))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=30, help="of all in turn (default: %(default)s)")
    return parser.parse_args()


def run(words: list[str], code: int) -> None:
    """Run a command, with its modules compiled as an installation leaves them, and make sure that it ended well."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=settings)
    if done.returncode != code:
        raise SystemExit(f"{words} ended with {done.returncode}, wanted {code}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
