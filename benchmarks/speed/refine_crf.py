"""refine-crf: two processes against one, where the time goes, and what 8-bit probabilities cost in mIoU.

    python -m benchmarks.speed.refine_crf work/cams.h5 work/threshold.h5 --images 120 --rounds 3

One and two processes take turns; medians are compared. The target is a ratio of 1.9 or more, with nothing else running.
What the machine itself has to give is measured in the same rounds: plain arithmetic, which needs neither memory nor
disk, in one process and in two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import alternate, conditions, make_parser, report, summary, target
from pseudolabel.artefacts import Images, MapsReader, MapsWriter, open_artefact
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import load_dataset, read_image
from pseudolabel.labels.assignment import probabilities, quantise, read_thresholds
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, iou
from pseudolabel.options import RefineCrfOptions
from pseudolabel.pairwise import dense_crf, resolve
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.stages.refine_crf import refine_crf

PORTIONS = [10_000_000] * 10
"""Of arithmetic: some seconds in all."""


def main() -> None:
    """Run the stage on one and on two processes in turn, then its parts image by image; report."""
    arguments = parse()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        cams, count = first_cams(arguments.cams, arguments.images, Path(folder) / "cams.h5")
        options = RefineCrfOptions(
            cams=cams,
            threshold=arguments.threshold,
            root=arguments.root,
            out=Path(folder) / "soft.h5",
            preset=arguments.preset,
            overwrite=True,
        )
        seconds = alternate(
            {
                "one_process": lambda: refine_crf(options.model_copy(update={"workers": 1})),
                "two_processes": lambda: refine_crf(options.model_copy(update={"workers": 2})),
                "arithmetic_in_one": lambda: deque(ordered_map(count_up, PORTIONS, workers=1)),
                "arithmetic_in_two": lambda: deque(ordered_map(count_up, PORTIONS, workers=2)),
            },
            arguments.rounds,
        )
        figures = {"preset": arguments.preset, "images": count, **speeds(seconds, count), **parts(options)}
    wanted = [target("two processes to one", figures["ratio_two_to_one"], ">= 1.9")]
    report(__file__, arguments, found, figures, wanted)


def count_up(number: int) -> int:
    """Arithmetic in registers; runs in a worker process."""
    total = 0
    for value in range(number):
        total += value * value % 7
    return total


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("cams", type=Path)
    parser.add_argument("threshold", type=Path)
    parser.add_argument("--root", type=Path, help="where the data set lies now")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="irn")
    return parser.parse_args()


def first_cams(cams: Path, count: int, out: Path) -> tuple[Path, int]:
    """Copy the CAMs of the first images; returns where they are and how many there were."""
    with open_artefact(cams, "cams") as artefact:
        reader = MapsReader(artefact)
        every = reader.images
        images = Images(every.ids[:count], every.heights[:count], every.widths[:count])
        with MapsWriter(out, artefact.header, images, dtype="float16") as writer:
            for index in range(len(images.ids)):
                writer.add(index, reader.maps(index))
    return out, len(images.ids)


def speeds(seconds: Mapping[str, Sequence[float]], images: int) -> dict[str, Any]:
    """Every time, images a second, and how much faster two processes are than one."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "seconds": {name: summary(times, 2) for name, times in seconds.items()},
        "images_per_second": {name: round(images / medians[name], 2) for name in ("one_process", "two_processes")},
        "ratio_two_to_one": medians["one_process"] / medians["two_processes"],
        "ratio_of_arithmetic": medians["arithmetic_in_one"] / medians["arithmetic_in_two"],
    }


def parts(options: RefineCrfOptions) -> dict[str, Any]:
    """mIoU of the CRF's labels before and after its probabilities become 8-bit, and the CRF's share of the work."""
    assert options.threshold is not None  # given above
    thresholds, _ = read_thresholds(options.threshold)
    settings = resolve(options)
    spent = {"crf": 0.0, "all": 0.0}
    with open_artefact(options.cams, "cams") as artefact:
        reader = MapsReader(artefact)
        dataset = load_dataset(reader.header.dataset, root=options.root)
        counter = PixelCounter(len(dataset.classes), boundary=None, ignored="background")
        counts = np.zeros((2, len(dataset.classes), 3))
        for index, record in enumerate(dataset.find(reader.images.ids, options.cams)):
            begin = time.process_time()
            labels, maps = at_size(reader.maps(index), reader.size(index))
            image, start = read_image(record.image), probabilities(labels, maps, thresholds.value)
            middle = time.process_time()
            refined = dense_crf(image, start, settings).probabilities
            spent["crf"] += time.process_time() - middle
            stored = quantise(refined)
            spent["all"] += time.process_time() - begin
            truth, named = dataset.read_mask(record), np.concatenate([[0], labels]).astype(np.uint8)
            for row, array in enumerate((refined, stored)):
                counts[row] += class_counts(counter.table(truth, named[array.argmax(axis=0)]), "background")
    exact, quantised = (100 * float(class_mean(iou(counted))) for counted in counts)
    return {
        "crf_share_of_processor_time": round(spent["crf"] / spent["all"], 3),
        "miou_float32": round(exact, 3),
        "miou_uint8": round(quantised, 3),
        "miou_loss": round(exact - quantised, 4),
    }


if __name__ == "__main__":
    main()
