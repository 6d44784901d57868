"""Opening an artefact: time and memory for 1,000 and for 100,000 images.

    python -m benchmarks.speed.open_artefact

Both artefacts hold CAMs, one to three maps an image. Each is opened in a fresh process, the medians over the rounds are
given: the time of opening with all checks, on the clock and of the processor, and of the first image's maps after
that; and how far each raised the process's peak memory. All ids, sizes and offsets are checked, so that opening grows
with their number. The targets are opening 100,000 images in less than a second, and in 16 MB more than 1,000.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.runtime.subprocesses import in_own_process

GRID = 14
"""Side of the maps: a ViT with patches of 16 pixels that sees 224."""


def main() -> None:
    """Make a small and a large artefact, open each in fresh processes, and report."""
    arguments = parse()
    found = conditions()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (1_000, 100_000):
            path = Path(folder) / f"{count}.h5"
            in_own_process("making the artefact", make, path, count)
            looks = [in_own_process("opening it", look, path) for _ in range(arguments.rounds)]
            medians = {name: round(statistics.median(values[name] for values in looks), 4) for name in looks[0]}
            figures.append({"images": count, "file_megabytes": round(path.stat().st_size / 1e6, 2), **medians})
    few, many = figures
    targets = [
        target("seconds to open 100,000 images", many["open_seconds"], "< 1"),
        target("processor seconds to open 100,000 images", many["open_processor_seconds"], "< 1"),
        target("megabytes more than for 1,000 images", many["open_megabytes"] - few["open_megabytes"], "<= 16"),
    ]
    report(__file__, arguments, found, {"rounds": arguments.rounds, "artefacts": figures}, targets)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=5, help="openings of each artefact (default: %(default)s)")
    return parser.parse_args()


def make(path: Path, count: int) -> None:
    """Write CAMs of random values for so many images."""
    import numpy as np

    from pseudolabel.artefacts import Header, Images, MapsWriter

    rng = np.random.default_rng(0)
    sizes = np.full(count, 224, dtype=np.int32)
    images = Images(tuple(f"image_{index:012}" for index in range(count)), sizes, sizes)
    header = Header("cams", "make-cams", {}, ("background", *(f"class {index}" for index in range(1, 81))))
    with MapsWriter(path, header, images, dtype="float16") as writer:
        for index in range(count):
            labels = rng.choice(80, int(rng.integers(1, 4)), replace=False) + 1
            writer.add(index, {int(label): rng.random((GRID, GRID), dtype=np.float32) for label in labels})


def look(path: Path) -> dict[str, Any]:
    """Open an artefact and read one image's maps, in a process that has done nothing else."""
    from pseudolabel.artefacts import MapsReader, open_artefact

    start, spent, before = time.perf_counter(), time.process_time(), _peak()
    with open_artefact(path, "cams") as artefact:
        opened, spent, after_opening = time.perf_counter(), time.process_time() - spent, _peak()
        MapsReader(artefact).maps(0)
        read, after_reading = time.perf_counter(), _peak()
    return {
        "open_seconds": opened - start,
        "open_processor_seconds": spent,
        "open_megabytes": after_opening - before,
        "first_maps_seconds": read - opened,
        "first_maps_megabytes": after_reading - after_opening,
    }


def _peak() -> float:
    """Peak memory of this process so far, megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
