"""refine-crf: two processes against one, where the time goes, and what 8-bit probabilities cost in mIoU.

    python benchmarks/refine_crf.py work/cams.h5 work/threshold.h5 --images 120 --rounds 3

Runs alternate between one and two processes, so that a change of the machine's mood meets both; medians are compared.
Prints the figures as JSON and writes them to ``benchmarks/results/refine_crf.json``. The target is a ratio of 1.9 or
more, with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import Images, MapsReader, MapsWriter, open_artefact
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import load_dataset, read_image
from pseudolabel.labels import probabilities, quantise, read_thresholds
from pseudolabel.options import RefineCrfOptions
from pseudolabel.pairwise import dense_crf, resolve
from pseudolabel.stages.refine_crf import refine_crf

RESULTS = Path(__file__).parent / "results" / "refine_crf.json"


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        cams = first_images(arguments.cams, arguments.images, Path(folder) / "cams.h5")
        found = {
            "command": f"python benchmarks/refine_crf.py CAMS THRESHOLD --images {arguments.images} "
            f"--rounds {arguments.rounds} --preset {arguments.preset}",
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            **processes(cams, arguments, Path(folder)),
            **quantisation(cams, arguments),
        }
    text = json.dumps(found, indent=2)
    print(text)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(text + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cams", type=Path)
    parser.add_argument("threshold", type=Path)
    parser.add_argument("--root", type=Path, help="where the data set lies now")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="irn")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def first_images(cams: Path, count: int, out: Path) -> Path:
    """Copy the CAMs of the first images."""
    with open_artefact(cams, "cams") as artefact:
        reader = MapsReader(artefact)
        every = reader.images
        images = Images(every.ids[:count], every.heights[:count], every.widths[:count])
        with MapsWriter(out, artefact.header, images, dtype="float16") as writer:
            for index in range(len(images.ids)):
                writer.add(index, reader.maps(index))
    return out


def processes(cams: Path, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of the whole stage on one and on two processes, in turn."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    images = 0
    for _ in range(arguments.rounds):
        for workers in (1, 2):
            options = RefineCrfOptions(
                cams=cams,
                threshold=arguments.threshold,
                root=arguments.root,
                out=folder / "soft.h5",
                preset=arguments.preset,
                workers=workers,
                overwrite=True,
            )
            begin = time.perf_counter()
            images = refine_crf(options)["images"]
            seconds[workers].append(time.perf_counter() - begin)
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    return {
        "images": images,
        "seconds_one_process": [round(value, 2) for value in seconds[1]],
        "seconds_two_processes": [round(value, 2) for value in seconds[2]],
        "images_per_second_one_process": round(images / one, 2),
        "images_per_second_two_processes": round(images / two, 2),
        "ratio_two_to_one": round(one / two, 3),
    }


def quantisation(cams: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """mIoU of the CRF's labels before and after its probabilities become 8-bit, and the CRF's share of the work."""
    thresholds, _ = read_thresholds(arguments.threshold)
    settings = resolve(RefineCrfOptions(cams=cams, out=cams.with_name("soft.h5"), preset=arguments.preset))
    spent = {"crf": 0.0, "all": 0.0}
    with open_artefact(cams, "cams") as artefact:
        reader = MapsReader(artefact)
        dataset = load_dataset(reader.header.dataset, root=arguments.root)
        counts = np.zeros((2, len(dataset.classes), len(dataset.classes)), dtype=np.int64)
        for index, record in enumerate(dataset.find(reader.images.ids, cams)):
            begin = time.process_time()
            labels, maps = at_size(reader.maps(index), reader.size(index))
            image, start = read_image(record.image), probabilities(labels, maps, thresholds.value)
            middle = time.process_time()
            refined = dense_crf(image, start, settings).probabilities
            end = time.process_time()
            stored = quantise(refined)
            spent["crf"] += end - middle
            spent["all"] += time.process_time() - begin
            truth, named = dataset.read_mask(record), np.concatenate([[0], labels])
            for row, array in enumerate((refined, stored)):
                counts[row] += confusion(truth, named[array.argmax(axis=0)], len(dataset.classes))
    exact, quantised = (100 * miou(table) for table in counts)
    return {
        "crf_share_of_processor_time": round(spent["crf"] / spent["all"], 3),
        "miou_float32": round(exact, 3),
        "miou_uint8": round(quantised, 3),
        "miou_loss": round(exact - quantised, 4),
    }


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true and found class; int64 (K, K)."""
    counted = truth != 255
    pairs = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def miou(table: np.ndarray) -> float:
    """Mean IoU over the classes that occur in the truth."""
    hits = np.diag(table)
    union = table.sum(axis=0) + table.sum(axis=1) - hits
    occurs = table.sum(axis=1) > 0
    return float(np.mean(hits[occurs] / union[occurs]))


if __name__ == "__main__":
    main()
