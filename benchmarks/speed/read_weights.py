"""Checksums on the weights of a checkpoint: what they cost in writing and in reading.

    python -m benchmarks.speed.read_weights

A checkpoint of 100 MB, 160 tensors of random float32, is written by ``write_artefact`` and read back in three ways, in
alternation: its tensors as they are (HDF5 checks Fletcher-32), the same from a file without checksums, and with the
digest recomputed first, as whoever builds a network from it does. Medians of processor seconds over the rounds. The
target is that all checks together take less than a second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.artefacts import Header, open_artefact, require_unaltered, write_artefact
from pseudolabel.artefacts.header import CostMeter

TENSORS, VALUES = 160, 156_250


def main() -> None:
    """Write both files, read them in turn, and report."""
    arguments = parse()
    found = conditions()
    rng = np.random.default_rng(0)
    arrays = {f"weights/tensor{index}": rng.random(VALUES, dtype=np.float32) for index in range(TENSORS)}
    with tempfile.TemporaryDirectory() as place:
        checked, plain = Path(place) / "checked.h5", Path(place) / "plain.h5"
        header = Header("checkpoint", "train-cam", {}, ("background", "one"))
        ways: dict[str, Callable[[], object]] = {
            "write": lambda: write_artefact(checked, header, arrays, CostMeter()),
            "write_without_checksums": lambda: write_plain(plain, arrays),
            "read": lambda: read(checked, digest=False),
            "read_with_digest": lambda: read(checked, digest=True),
            "read_without_checksums": lambda: read_plain(plain),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                start = time.process_time()
                way()
                seconds[name].append(time.process_time() - start)
    medians = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    more = round(medians["read_with_digest"] - medians["read_without_checksums"], 4)
    report(
        __file__,
        arguments,
        found,
        {"rounds": arguments.rounds, "megabytes": TENSORS * VALUES * 4 / 1e6, "processor_seconds": medians},
        [target("processor seconds of all checks on reading", more, "< 1")],
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=5, help="of each way (default: %(default)s)")
    return parser.parse_args()


def read(path: Path, *, digest: bool) -> None:
    """Open a checkpoint and read its weights."""
    with open_artefact(path, "checkpoint") as artefact:
        if digest:
            require_unaltered(artefact)
        for dataset in artefact.file["weights"].values():
            dataset[()]


def write_plain(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The arrays alone, contiguous."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, array in arrays.items():
            file[name] = array


def read_plain(path: Path) -> None:
    """All arrays of such a file."""
    with h5py.File(path) as file:
        for dataset in file["weights"].values():
            dataset[()]


if __name__ == "__main__":
    main()
