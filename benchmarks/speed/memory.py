"""Peak memory of the offline stages for few and for many images: it must not grow with their number.

    python -m benchmarks.speed.memory                                            # synthetic images, 600 and 6,000
    python -m benchmarks.speed.memory --root VOCdevkit/VOC2012 --size 500        # photographs as they are
    python -m benchmarks.speed.memory --small 30 --large 300                     # a quick look

The images of the split are reduced to ``--size`` and repeated under new ids, as symbolic links in a folder of VOC's
layout, until there are ``--small`` and ``--large`` of them. CAMs are made of the masks (each tag's share of the pixels
in a square of the grid), for memory does not depend on what they show. Then every stage runs in a fresh process:
search-threshold by mixture and by sweep, refine-crf with one iteration, export-masks, evaluate-masks.

Measured (on Linux) is the largest resident memory of the stage's own process and of its largest worker, but for a
worker's last tenth of a second; the stage's total is its own and that of all workers, which is no less than what it
ever holds at once. The target is a ratio of the totals of at most 1.1 between many and few images. The images must not
be much smaller than they are by default, so that in both cases the buffers of fixed size (4 MiB before a commit, 16 MiB
of a digest, HDF5's cache of chunks) fill up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.runtime.subprocesses import in_own_process

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.data import Dataset

GRID = 28
"""Long side of the maps: what make-cams stores of a ViT with patches of 16 pixels that sees 448."""
SYNTHETIC = 200
"""Synthetic images that are repeated."""
Peaks = dict[str, tuple[float, float]]


def main() -> None:
    """Make few and many images, run all offline stages on both, each in a fresh process, and report."""
    arguments = parse()
    found = conditions()
    counts = (arguments.small, arguments.large)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        in_own_process("making the images", make_base, folder / "base", arguments.root, arguments.split, arguments.size)
        for count in counts:
            in_own_process("repeating the images", repeat, folder / "base", folder / str(count), count)
        runs: dict[int, list[Peaks]] = {count: [] for count in counts}
        for _ in range(arguments.rounds):
            for count in counts:
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    runs[count].append(dict(measure(folder / str(count) / "cams.h5", Path(out), arguments.workers)))
    stages = [describe(name, runs, counts, arguments.workers) for name in runs[counts[0]][0]]
    source = "synthetic" if arguments.root is None else f"photographs of split {arguments.split}"
    figures = {
        "source": source,
        "long_side": arguments.size,
        "images": counts,
        "rounds": arguments.rounds,
        "workers": arguments.workers,
        "stages": stages,
    }
    worst = max(stage["ratio"]["total"] for stage in stages)
    said = f"largest ratio of a stage's peak memory, {counts[1]} to {counts[0]} images"
    report(__file__, arguments, found, figures, [target(said, worst, "<= 1.1")])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--root", type=Path, help="real photographs, in VOC layout (default: synthetic images)")
    parser.add_argument("--split", default="train", help="of --root (default: %(default)s)")
    parser.add_argument("--size", type=int, default=240, help="long side of the images at most (default: %(default)s)")
    parser.add_argument("--small", type=int, default=600, help="few images (default: %(default)s)")
    parser.add_argument("--large", type=int, default=6000, help="many images (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes of a stage (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of few and many in turn (default: %(default)s)")
    return parser.parse_args()


def make_base(base: Path, root: Path | None, split: str, size: int) -> None:
    """A folder of VOC's layout with images of at most ``size`` pixels: synthetic ones, or those of a split."""
    from pseudolabel.data import load_dataset
    from pseudolabel.data.layouts.synthetic import synth
    from pseudolabel.options import SynthOptions

    if root is None:
        synth(SynthOptions(out=base, train=SYNTHETIC, val=1, size=size))
    else:
        copy_reduced(load_dataset({"dataset": "voc", "root": str(root), "split": split}), base, size)


def copy_reduced(dataset: Dataset, base: Path, size: int) -> None:
    """Copy the images, masks and annotations of a data set in VOC layout, no side longer than ``size`` pixels."""
    import numpy as np
    from PIL import Image

    from pseudolabel.data import read_image
    from pseudolabel.data.palette import write_mask

    names = [f"photograph_{number:06d}" for number in range(len(dataset.records))]
    make_folders(base, names)
    (base / "classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes[1:]))
    for name, record in zip(names, dataset.records, strict=True):
        photograph, mask = Image.fromarray(read_image(record.image)), Image.fromarray(dataset.read_mask(record))
        scale = min(1.0, size / max(photograph.size))
        smaller = max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale))
        photograph.resize(smaller, Image.Resampling.BILINEAR).save(base / f"JPEGImages/{name}.jpg", quality=90)
        labels = np.asarray(mask.resize(smaller, Image.Resampling.NEAREST))
        write_mask(base / f"SegmentationClass/{name}.png", labels)
        shutil.copy(dataset.root / f"Annotations/{record.id}.xml", base / f"Annotations/{name}.xml")


def make_folders(root: Path, names: list[str]) -> None:
    """The folders of VOC's layout, and the list ``train`` of these ids."""
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{name}\n" for name in names))


def repeat(base: Path, folder: Path, count: int) -> None:
    """Repeat the images of ``base`` under new ids until there are ``count``, and write their CAMs to ``cams.h5``."""
    import numpy as np

    from pseudolabel.artefacts import Header, Images, MapsWriter
    from pseudolabel.data import load_dataset

    whole = load_dataset({"dataset": "voc", "root": str(base), "split": "train"})
    names = [f"image_{number:06d}" for number in range(count)]
    make_folders(folder, names)
    (folder / "classes.txt").symlink_to(base / "classes.txt")
    for number, name in enumerate(names):
        record = whole.records[number % len(whole.records)]
        for part, ending in (
            ("JPEGImages", record.image.suffix),
            ("SegmentationClass", ".png"),
            ("Annotations", ".xml"),
        ):
            (folder / part / f"{name}{ending}").symlink_to(base / part / f"{record.id}{ending}")
    masks = [whole.read_mask(record) for record in whole.records]
    maps = [shares(mask, record.tags or ()) for mask, record in zip(masks, whole.records, strict=True)]
    sizes = np.asarray([masks[number % len(masks)].shape for number in range(count)], dtype=np.int32)
    spec = {"dataset": "voc", "root": str(folder), "split": "train"}
    header = Header("cams", "make-cams", {}, whole.classes, dataset=spec, protocol={"tag_filter": "image tags"})
    with MapsWriter(folder / "cams.h5", header, Images(tuple(names), *sizes.T), dtype="float16") as writer:
        for number in range(count):
            writer.add(number, maps[number % len(maps)])


def shares(mask: np.ndarray, tags: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Each tag's share of the pixels in each square of a grid: class index to float32 (h, w) in [0, 1]."""
    import numpy as np
    from PIL import Image

    scale = GRID / max(mask.shape)
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    return {
        label: np.asarray(Image.fromarray((mask == label).astype(np.float32)).resize(size, Image.Resampling.BOX))
        for label in tags
    }


def measure(cams: Path, out: Path, workers: int) -> Iterator[tuple[str, tuple[float, float]]]:
    """Run the offline stages one after the other; yields each one's name and its ``peaks``."""
    threshold, soft, masks = out / "threshold.h5", out / "soft.h5", out / "masks"
    mixture, sweep = {"cams": cams, "method": "mixture"}, {"cams": cams, "method": "sweep"}
    for name, values in (
        ("search-threshold, mixture", mixture | {"out": threshold}),
        ("search-threshold, sweep", sweep | {"out": out / "sweep.h5"}),
        ("refine-crf, 1 iteration", {"cams": cams, "threshold": threshold, "iterations": 1, "out": soft}),
        ("export-masks", {"labels": soft, "out": masks}),
        ("evaluate-masks", {"masks": masks}),
    ):
        found = in_own_process(name, peaks, name.partition(",")[0], values | {"workers": workers})
        print(
            f"{cams.parent.name} images: {name} {found[0]:.1f} MiB, worker {found[1]:.1f}", file=sys.stderr, flush=True
        )
        yield name, found


def peaks(stage: str, values: dict[str, Any]) -> tuple[float, float]:
    """Run a stage in this process; returns the peak memory of this process and of its largest worker, in MiB.

    Without workers the second is 0.
    """
    from pseudolabel.options import build_options
    from pseudolabel.runs.runner import stage_function
    from pseudolabel.runtime.progress import Progress

    function = stage_function(stage)
    with watched_workers() as largest:
        function(build_options(stage, values), Progress())
    return own_peak(os.getpid()), max(largest.values(), default=0.0)


@contextmanager
def watched_workers() -> Iterator[dict[int, float]]:
    """The peak memory of each worker process of this one so far, MiB, by its number; looked at ten times a second.

    Not ``RUSAGE_CHILDREN``: what that says of a worker includes the moment at which it was still its parent's memory,
    so that a parent which has grown makes its workers seem to have grown.
    """
    found: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        """Until the stage has ended."""
        while not ended.wait(0.1):
            for process in multiprocessing.active_children():
                if process.pid is not None and (peak := own_peak(process.pid)):
                    found[process.pid] = peak

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def own_peak(process: int) -> float:
    """Largest resident memory of a process so far, MiB; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(peak[1]) / 1024 if peak else 0.0


def describe(name: str, runs: dict[int, list[Peaks]], counts: tuple[int, int], workers: int) -> dict[str, Any]:
    """One stage's medians over the rounds in MiB, for few and for many images, and how they grow."""
    few, many = counts
    own, worker = ([statistics.median(run[name][which] for run in runs[count]) for count in counts] for which in (0, 1))
    total = [one + workers * other for one, other in zip(own, worker, strict=True)]
    figures = {"own": own, "worker": worker, "total": total}
    ratios = {key: round(pair[1] / pair[0], 4) for key, pair in figures.items() if pair[0]}  # a mixture has no worker
    return {
        "stage": name,
        **{f"{key}_mib": [round(value, 1) for value in pair] for key, pair in figures.items()},
        "ratio": ratios,
        "own_growth_kib_per_image": round((own[1] - own[0]) * 1024 / (many - few), 2),
    }


if __name__ == "__main__":
    main()
