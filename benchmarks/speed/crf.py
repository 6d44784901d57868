"""The dense CRF on the lattice against pydensecrf: images a second, and the share of pixels with the same label.

    python -m benchmarks.speed.crf work/val-cams.h5 work/threshold.h5 --soft work/val/soft.h5

Every photograph is refined by both engines in turn, in one thread, from the same probabilities: background and the
classes present (CAMs at their threshold), and all labels (a segmenter's predictions without a tag filter). Then two
processes with the lattice against one with pydensecrf, each warm before the clock starts. Needs the extra pydensecrf.
Decoding, enlarging and writing are not in these times; benchmarks/speed/refine_crf.py has the stage as a whole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy: one core is one core

import numpy as np

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import load_dataset, read_image
from pseudolabel.labels.assignment import probabilities, read_thresholds
from pseudolabel.pairwise import PRESETS, dense_crf
from pseudolabel.runtime.parallel import ordered_map

TIMED = ("irn", "toco")
Image = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Time both engines on one core and on two processes, compare their labels, and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("cams", type=Path)
    parser.add_argument("threshold", type=Path)
    parser.add_argument("--soft", type=Path, required=True, help="soft labels of predict-masks without tags")
    parser.add_argument("--root", type=Path, help="where the data set lies now")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--timed-all", type=int, default=40, help="images timed with all labels (default: 40)")
    arguments = parser.parse_args()
    found = conditions()
    present = list(present_classes(arguments))
    every = list(all_classes(arguments))
    figures: dict[str, Any] = {"images": len(present), "labels_present": spread([len(p) for _, p in present])}
    figures["labels_all"] = spread([len(p) for _, p in every])
    figures["processes"] = {preset: processes(present, preset) for preset in TIMED}
    figures["one_core"] = {
        f"{preset}, {name}": compare(images, preset)
        for name, images in (("present classes", present), ("all labels", every[: arguments.timed_all]))
        for preset in TIMED
    }
    figures["same_labels"] = {
        f"{preset}, {name}": parity(images, preset)
        for name, images in (("present classes", present), ("all labels", every))
        for preset in PRESETS
    }
    report(__file__, arguments, found, figures, list(judge(figures)))


def judge(figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The targets, each with its figure."""
    for name, row in figures["one_core"].items():
        yield target(f"one core, {name}: lattice to pydensecrf", row["ratio"], f">= {3 if 'all' in name else 2}")
    for preset, row in figures["processes"].items():
        yield target(f"{preset}: lattice on two processes to pydensecrf on one", row["ratio"], ">= 3.8")
    for name, row in figures["same_labels"].items():
        yield target(f"same labels, {name}", row["mean"], ">= 0.999")


def present_classes(arguments: argparse.Namespace) -> Iterator[Image]:
    """The photograph and the probabilities of background and the classes present, as refine-crf makes them."""
    thresholds, _ = read_thresholds(arguments.threshold)
    for photograph, labels, maps in stored(arguments.cams, arguments):
        yield photograph, probabilities(labels, maps, thresholds.value)


def all_classes(arguments: argparse.Namespace) -> Iterator[Image]:
    """The photograph and the predicted probabilities of all classes."""
    for photograph, _, maps in stored(arguments.soft, arguments):
        raised = np.maximum(maps, 1e-6)
        yield photograph, raised / raised.sum(axis=0)


def stored(path: Path, arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each photograph with its labels and its maps at the photograph's size."""
    with open_artefact(path, "cams", "soft-labels") as artefact:
        reader = MapsReader(artefact)
        dataset = load_dataset(reader.header.dataset, root=arguments.root)
        records = dataset.find(reader.images.ids, path)
        for index, record in enumerate(records[: arguments.images]):
            yield read_image(record.image), *at_size(reader.maps(index), reader.size(index))


def spread(counts: list[int]) -> dict[str, float]:
    """How many labels the images have."""
    return {"least": min(counts), "mean": round(float(np.mean(counts)), 2), "most": max(counts)}


def refine(image: Image, preset: str, engine: Any) -> np.ndarray:
    """The probabilities that an engine makes of one image."""
    return dense_crf(*image, PRESETS[preset], engine=engine).probabilities


def compare(images: list[Image], preset: str) -> dict[str, Any]:
    """Seconds of both engines, photograph by photograph in turn, and the mean-field steps of the lattice's."""
    seconds = {"lattice": 0.0, "pydensecrf": 0.0}
    refine(images[0], preset, "lattice")  # compiles, or reads the compiled code
    for image in images:
        for engine in seconds:
            begin = time.perf_counter()
            refine(image, preset, engine)
            seconds[engine] += time.perf_counter() - begin
    steps = [dense_crf(*image, PRESETS[preset]).steps for image in images[:20]]
    row = {f"{engine}_images_per_second": round(len(images) / value, 3) for engine, value in seconds.items()}
    print(preset, row, flush=True)
    return {
        "images": len(images),
        **row,
        "ratio": round(seconds["pydensecrf"] / seconds["lattice"], 3),
        "steps": round(float(np.mean(steps)), 2),
    }


def processes(images: list[Image], preset: str) -> dict[str, Any]:
    """The lattice on two processes, pydensecrf on one, the lattice on one: seconds from a common start to the end."""
    row = {
        "lattice_two": timed(images, preset, "lattice", 2),
        "pydensecrf_one": timed(images, preset, "pydensecrf", 1),
        "lattice_one": timed(images, preset, "lattice", 1),
    }
    found = {f"{name}_seconds": round(value, 3) for name, value in row.items()}
    print(preset, found, flush=True)
    return {
        **found,
        "ratio": row["pydensecrf_one"] / row["lattice_two"],
        "two_to_one": row["lattice_one"] / row["lattice_two"],
    }


def timed(images: list[Image], preset: str, engine: str, count: int) -> float:
    """Seconds that some processes take for the images, from a common start to the end of the last."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(count + 1)
    # Even shares by pixels times labels: the largest first, each to whoever has least.
    order = sorted(range(len(images)), key=lambda i: -images[i][1].size)
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in order:
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += images[index][1].size
    workers = [
        context.Process(target=work, args=([images[i] for i in share], preset, engine, ready)) for share in shares
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begin


def work(images: list[Image], preset: str, engine: str, ready: Barrier) -> None:
    """Refine a share of the images; runs in a process of its own, which is warm before it says that it is ready."""
    refine(images[0], preset, engine)
    ready.wait()
    for image in images:
        refine(image, preset, engine)


def parity(images: list[Image], preset: str) -> dict[str, float]:
    """Share of pixels with the same label: over all photographs together, and of the worst."""
    same = np.array(list(ordered_map(same_labels, [(image, preset) for image in images], workers=None)))
    row = {
        "mean": round(float(same[:, 0].sum() / same[:, 1].sum()), 6),
        "worst": round(float((same[:, 0] / same[:, 1]).min()), 6),
    }
    print("same labels", preset, row, flush=True)
    return row


def same_labels(task: tuple[Image, str]) -> tuple[int, int]:
    """How many pixels get the same label from both engines, and how many there are; runs in a worker process."""
    image, preset = task
    ours, theirs = (refine(image, preset, engine).argmax(axis=0) for engine in ("lattice", "pydensecrf"))
    return int((ours == theirs).sum()), ours.size


if __name__ == "__main__":
    main()
