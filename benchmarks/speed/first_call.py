"""What compiling the pairwise engine costs the first process on a machine, and that a second one pays nothing.

    python -m benchmarks.speed.first_call

Two processes, one after the other, refine a small image with two, three and 21 labels; they share a cache of machine
code that is empty at first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import conditions, make_parser, report, target

_CODE = """
import json, time
import numpy as np
begin = time.perf_counter()
from pseudolabel.pairwise import PRESETS, dense_crf
import pseudolabel.pairwise.lattice, pseudolabel.pairwise.meanfield, pseudolabel.pairwise.spatial
loaded = time.perf_counter()
random = np.random.default_rng(0)
image = random.integers(0, 256, (60, 80, 3)).astype(np.uint8)
for count in (2, 3, 21):
    start = random.random((count, 60, 80)).astype(np.float32)
    dense_crf(image, start / start.sum(axis=0), PRESETS["toco"])
print(json.dumps({"import": loaded - begin, "three_crfs": time.perf_counter() - loaded}))
"""


def main() -> None:
    """Run two processes with one empty cache after the other, and report."""
    arguments = make_parser(__doc__, __file__).parse_args()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        seconds = {name: measure(Path(folder) / "cache") for name in ("first_process", "second_process")}
    share = seconds["second_process"]["three_crfs"] / seconds["first_process"]["three_crfs"]
    report(__file__, arguments, found, {"seconds": seconds}, [target("second to first process", share, "<= 0.1")])


def measure(cache: Path) -> dict[str, Any]:
    """Seconds of loading the engine and of three CRFs in a fresh process."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True)
    return {name: round(value, 3) for name, value in json.loads(done.stdout).items()}


if __name__ == "__main__":
    main()
