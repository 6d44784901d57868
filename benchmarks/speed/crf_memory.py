"""Peak memory of one dense CRF on the lattice for each megapixel, and what ``memory_of_crf`` says of it.

    python -m benchmarks.speed.crf_memory --photographs ../shared/voc-mini/JPEGImages

Photographs are enlarged to the size wanted, with a little noise, as a camera's would have. Every size and number of
labels has a process of its own, whose peak is taken less that of a process which refines a tiny image.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, conditions, make_parser, module_of, report

SIZES = (0.1875, 1, 4)
LABELS = (3, 21)
TRIED = ("toco", "deeplab")  # the presets with the fewest and the most corners a pixel


def main() -> None:
    """Measure every size, number of labels and preset in a process of its own, and report."""
    if sys.argv[1] == "--child":
        print(json.dumps(child(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
        return
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--photographs", type=Path, required=True, help="folder of .jpg files")
    arguments = parser.parse_args()
    found = conditions()
    base = measure(arguments.photographs, 0.0001, 2, "toco")["peak"]
    rows = []
    for megapixels, labels, preset in product(SIZES, LABELS, TRIED):
        row = measure(arguments.photographs, megapixels, labels, preset)
        used = row["peak"] - base
        rows.append(
            {
                "megapixels": megapixels,
                "labels": labels,
                "preset": preset,
                "megabytes": round(used / 1e6),
                "megabytes_a_megapixel": round(used / 1e6 / row["megapixels"]),
                "needed_says": round(row["needed"] / 1e6),
                "seconds": row["seconds"],
            }
        )
        print(rows[-1], flush=True)
    report(__file__, arguments, found, {"process_megabytes": round(base / 1e6), "rows": rows}, [])


def measure(folder: Path, megapixels: float, labels: int, preset: str) -> dict[str, Any]:
    """Peak of a process that refines one photograph."""
    command = [
        sys.executable,
        "-m",
        module_of(__file__),
        "--child",
        str(folder.resolve()),
        str(megapixels),
        str(labels),
        preset,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def child(folder: Path, megapixels: float, labels: int, preset: str) -> dict[str, Any]:
    """Refine one photograph of that size; the inputs themselves are part of what it takes."""
    import time

    import numpy as np

    from benchmarks.common import photographs
    from pseudolabel.pairwise import PRESETS, dense_crf, memory_of_crf

    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = max(height, 8), max(round(height * 4 / 3), 8)
    random = np.random.default_rng(0)
    image = photographs(folder, 1, size)[0]
    for row in image:  # by row, so that the noise itself takes no memory
        row[:] = np.clip(row + random.integers(-4, 5, row.shape), 0, 255)
    start = np.full((labels, *size), 0.5 / labels, dtype=np.float32)
    for label in range(labels):
        start[label, :, label * size[1] // labels : (label + 1) * size[1] // labels] += 0.5
    begin = time.perf_counter()
    dense_crf(image, start, PRESETS[preset])
    seconds = time.perf_counter() - begin
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "megapixels": size[0] * size[1] / 1e6,
        "needed": memory_of_crf(size[0] * size[1], labels),
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main()
