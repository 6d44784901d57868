"""evaluate-masks against only decoding the same PNGs, on the same number of processes.

    python -m benchmarks.speed.evaluate_masks --root ../shared/voc-mini

The images of a data set in VOC layout are repeated under new names (symbolic links) until there are so many that the
start of the worker processes, which all sides pay, matters little. The masks that are scored are the ground truth,
shifted by some pixels, written as export-masks writes them. Decoding means Pillow's, of truth and prediction, in the
stage's own pool of processes; ``own_reader`` is the same with the project's quicker reader of plain PNGs, which the
stage uses. All take turns; the median ratio counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import alternate, conditions, make_parser, report, summary, target
from pseudolabel.data.images import read_label_png
from pseudolabel.data.palette import write_mask
from pseudolabel.options import EvaluateMasksOptions
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.stages.evaluate_masks import BLOCK, blocks, evaluate_masks

SHIFT = (7, 5)  # pixels down and to the right
Decode = Callable[[Sequence[tuple[Path, Path]]], None]


def main() -> None:
    """Time the stage, the same without its boundary score, and two ways of only decoding, in turn; report."""
    arguments = parse()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        pngs = make_set(arguments.root, Path(folder), arguments.images)

        def decode(function: Decode) -> None:
            """Run a decoder over all PNGs in the stage's own kind of pool."""
            deque(ordered_map(function, blocks(pngs, BLOCK["png"]), workers=arguments.workers), maxlen=0)

        def score(**options: Any) -> None:
            """Run the stage."""
            named: dict[str, Any] = {"dataset": "voc", "root": Path(folder), "split": "all", "overwrite": True}
            masks = Path(folder) / "masks"
            evaluate_masks(EvaluateMasksOptions(masks=masks, workers=arguments.workers, **named, **options))

        seconds = alternate(
            {
                "decode": lambda: decode(decode_with_pillow),
                "evaluate_masks": score,
                "own_reader": lambda: decode(decode_with_own_reader),
                "without_boundary": lambda: score(boundary=None),
            },
            arguments.rounds,
        )
    ratios = {
        name: [one / base for one, base in zip(times, seconds["decode"], strict=True)]
        for name, times in seconds.items()
        if name != "decode"
    }
    figures = {
        "images": arguments.images,
        "processes": arguments.workers,
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "ratio_to_decode": {name: summary(values) for name, values in ratios.items()},
        "milliseconds_an_image_and_process": {
            name: round(1000 * statistics.median(times) * arguments.workers / arguments.images, 3)
            for name, times in seconds.items()
        },
    }
    wanted = [target("time to only decoding", statistics.median(ratios["evaluate_masks"]), "<= 1.3")]
    report(__file__, arguments, found, figures, wanted)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def make_set(root: Path, folder: Path, count: int) -> list[tuple[Path, Path]]:
    """A data set of ``count`` images with list ``all`` in ``folder``, and masks in ``folder/masks``.

    Returns:
        The PNGs of truth and prediction.
    """
    root = root.resolve()
    sources = sorted((root / "SegmentationClass").glob("*.png"))
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "masks", "shifted"):
        (folder / name).mkdir(parents=True)
    for source in sources:
        labels = np.asarray(Image.open(source))
        shifted = np.zeros_like(labels)
        shifted[SHIFT[0] :, SHIFT[1] :] = labels[: -SHIFT[0], : -SHIFT[1]]
        write_mask(folder / "shifted" / source.name, np.where(shifted == 255, 0, shifted).astype(np.uint8))
    pngs = []
    for number in range(count):
        source = sources[number % len(sources)]
        name = f"{number:06d}_{source.stem}"
        truth, mask = folder / "SegmentationClass" / f"{name}.png", folder / "masks" / f"{name}.png"
        truth.symlink_to(source)
        mask.symlink_to(folder / "shifted" / source.name)
        (folder / "JPEGImages" / f"{name}.jpg").symlink_to(root / "JPEGImages" / f"{source.stem}.jpg")
        pngs.append((truth, mask))
    (folder / "ImageSets/Segmentation/all.txt").write_text("\n".join(truth.stem for truth, _ in pngs))
    return pngs


def decode_with_pillow(pngs: Sequence[tuple[Path, Path]]) -> None:
    """What any scorer must do at least: truth and prediction as arrays. Runs in a worker process."""
    for pair in pngs:
        for path in pair:
            np.asarray(Image.open(path))


def decode_with_own_reader(pngs: Sequence[tuple[Path, Path]]) -> None:
    """The same with the reader that the stage uses."""
    for pair in pngs:
        for path in pair:
            read_label_png(path)


if __name__ == "__main__":
    main()
