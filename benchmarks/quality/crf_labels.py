"""How many pixels get the same label from the CRF on the lattice as from pydensecrf, by preset and kind of input.

    python -m benchmarks.quality.crf_labels ../shared/voc-mini/JPEGImages

Photographs at 500 x 375 and reduced to 240 x 180 pixels, with the softmax of smooth random scores of 4 and of 21
classes: sure of their class nearly everywhere (as a segmenter is), or unsure. Share of the pixels with the same label:
the mean over photographs, and of the worst one. benchmarks/speed/crf.py has CAMs and a segmenter's predictions. There
is no target. Needs the extra pydensecrf.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.common import conditions, make_parser, photographs, report
from pseudolabel.pairwise import PRESETS, dense_crf
from pseudolabel.runtime.resizing import resize

SIZES = {"500 x 375": (375, 500), "240 x 180": (180, 240)}
CLASSES = (4, 21)
SHARPNESS = {"sure": 8.0, "unsure": 1.0}
"""Deviation of the random scores before their softmax."""
GRID = (6, 8)


def main() -> None:
    """Refine with both, compare and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("folder", type=Path, help="of .jpg photographs")
    parser.add_argument("--images", type=int, default=8)
    arguments = parser.parse_args()
    found, rows = conditions(), {}
    for (size, shape), classes, (name, sharpness) in product(SIZES.items(), CLASSES, SHARPNESS.items()):
        images = photographs(arguments.folder, arguments.images, shape)
        starts = [start(classes, shape, sharpness, seed) for seed in range(len(images))]
        for preset in PRESETS:
            same = [share(image, maps, preset) for image, maps in zip(images, starts, strict=True)]
            rows[f"{size}, {classes} classes, {name}, {preset}"] = {
                "mean": round(100 * float(np.mean(same)), 3),
                "worst": round(100 * min(same), 3),
            }
            print(f"{size}, {classes} classes, {name}, {preset}", same, flush=True)
    report(__file__, arguments, found, {"same_labels_per_cent": rows, "over_all": over_all(rows)}, [])


def start(classes: int, shape: tuple[int, int], sharpness: float, seed: int) -> np.ndarray:
    """Smooth random probabilities, float32 (K, H, W)."""
    import torch

    coarse = torch.randn((1, classes, *GRID), generator=torch.Generator().manual_seed(seed))
    found: np.ndarray = resize(sharpness * coarse, shape).softmax(dim=1)[0].clamp(min=1e-6).numpy()
    return np.asarray(found / found.sum(axis=0))


def share(image: np.ndarray, maps: np.ndarray, preset: str) -> float:
    """Of the pixels, those that get the same label from both."""
    ours, theirs = (
        dense_crf(image, maps, PRESETS[preset], engine=engine).probabilities.argmax(axis=0)
        for engine in ("lattice", "pydensecrf")
    )
    return float((ours == theirs).mean())


def over_all(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """The lowest and highest mean, and the worst photograph."""
    means = [row["mean"] for row in rows.values()]
    return {"lowest": min(means), "highest": max(means), "worst": min(row["worst"] for row in rows.values())}


if __name__ == "__main__":
    main()
