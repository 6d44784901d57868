"""What a vote of regions does to labels, by rule and source of the regions.

    python -m benchmarks.quality.region_votes work/cams.h5 --threshold work/threshold.h5 --boxes VOC/Annotations

Labels are those of a given artefact (CAMs, soft labels or masks); nothing is trained. mIoU over its first images, and
the mean over images of the difference in the image's own mIoU to the labels without a vote, with its standard error.

Regions: superpixels (felzenszwalb, slic at their defaults); and, as an upper bound of each rule that is no result of a
method (oracle), pieces of the ground truth: connected parts of each class, background included, as they are, cut into
four at random, and dilated by 3 pixels. With --boxes, the box rule too, and what boxes alone give when they are filled.
Needs the extra regions. The target is one point more with superpixels than without a vote: the rule is chosen on every
other image and measured on the rest, for the best of many on the same images would be chance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from scipy import ndimage

from benchmarks.common import conditions, make_parser, report, target
from pseudolabel.artefacts.maps import at_size
from pseudolabel.artefacts.run_lengths import Regions, make_regions, mask_runs
from pseudolabel.data import Record, read_image, reopen_dataset
from pseudolabel.data.faults import stop
from pseudolabel.data.records import IGNORE
from pseudolabel.data.shapes import cells
from pseudolabel.data.weak.boxes import check_boxes
from pseudolabel.labels.assignment import from_soft
from pseudolabel.labels.inputs import open_maps
from pseudolabel.labels.superpixels import SuperpixelSettings, superpixels
from pseudolabel.metrics.confusion import PixelCounter
from pseudolabel.metrics.scores import summarise
from pseudolabel.stages.vote_regions import Ballot, Vote, cast

FELZENSZWALB = SuperpixelSettings("felzenszwalb", 0.8, scale=100, minimum=100)
SLIC = SuperpixelSettings("slic", 0.0, segments=150, compactness=10)
RULES: dict[str, dict[str, Any]] = {
    "sepl": {"rule": "sepl"},
    "fma": {"rule": "fma"},
    "soft": {"rule": "soft"},
    "soft, split 0.15": {"rule": "soft", "split": 0.15},
    "box": {"rule": "box"},
}
USUAL = Vote("sepl", share=0.5, coverage=0.85, power=0.7, inside=0.9, split=None)
WITHOUT = "no vote"
FILLED = "boxes filled, smaller ones on top (no labels used)"
STATED = ("tag_filter", "scales", "flip", "size", "propagate", "crf", "threshold")
CUTS = 4
DILATION = 3


def main() -> None:
    """Vote, score and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("labels", type=Path, help="CAMs, soft labels or masks")
    parser.add_argument("--threshold", type=Path, help="of search-threshold, for CAMs")
    parser.add_argument("--boxes", type=Path, help="boxes for the box rule; left out without")
    parser.add_argument("--root", type=Path, help="where the data set lies now, if it has moved")
    parser.add_argument("--images", type=int, default=100, help="first images of the artefact (default: %(default)s)")
    arguments = parser.parse_args()
    found = conditions()
    with open_maps(arguments.labels, arguments.threshold, "cams", "soft-labels", "masks") as source:
        dataset = reopen_dataset(source.header.dataset, root=arguments.root, boxes=arguments.boxes)
        records = dataset.find(source.images.ids, arguments.labels)[: arguments.images]
        kind, thresholds = source.header.kind, source.thresholds
        counter = PixelCounter(len(dataset.classes), boundary=None, ignored="background")
        tables: dict[str, list[np.ndarray]] = {}
        counts: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            truth, task = dataset.read_mask(record), source.task(index)
            for name, made in sources(record, truth, seed=index).items():
                regions = made()
                counts.setdefault(name, []).append(len(regions))
                for words, vote in votes(kind, boxes=arguments.boxes is not None).items():
                    labels = voted(Ballot(task, regions, record), vote, thresholds=thresholds, kind=kind)
                    tables.setdefault(f"{name}: {words}", []).append(counter.table(truth, labels))
            nothing = voted(Ballot(task, None, record), USUAL, thresholds=thresholds, kind=kind)
            tables.setdefault(WITHOUT, []).append(counter.table(truth, nothing))
            if arguments.boxes is not None:
                tables.setdefault(FILLED, []).append(counter.table(truth, filled(record, truth.shape)))
            print(f"image {index + 1} of {len(records)}", flush=True)
    rows = {name: row(every, tables[WITHOUT], dataset.classes) for name, every in tables.items()}
    chosen = chosen_on_half(tables, dataset.classes)
    protocol = {name: value for name, value in source.header.protocol.items() if name in STATED}
    figures = {
        "labels": kind,
        "images": len(records),
        "protocol": protocol,
        "oracle": "regions named pieces are made of the ground truth: upper bounds, and no results of a method",
        "regions_per_image": {name: round(float(np.mean(every)), 1) for name, every in counts.items()},
        "miou_per_cent": rows,
        "superpixels_chosen_on_half": chosen,
    }
    words = "points of mIoU that superpixels add on every other image, by the rule that is best on the rest"
    gain = target(words, chosen["change"], ">= 1")
    report(__file__, arguments, found, figures, [gain])


def votes(kind: str, *, boxes: bool) -> dict[str, Vote]:
    """Every rule at its defaults."""
    usual = replace(USUAL, power=0.6 if kind == "cams" else 0.7)
    return {words: replace(usual, **changes) for words, changes in RULES.items() if boxes or words != "box"}


def voted(ballot: Ballot, vote: Vote, **about: Any) -> np.ndarray:
    """The label map after a vote: uint8 (H, W)."""
    found = cast(ballot, vote=vote, held=False, **about)
    assert not isinstance(found, str)  # no image was skipped
    return from_soft(*at_size(found, ballot.maps.size))


def sources(record: Record, truth: np.ndarray, *, seed: int) -> Mapping[str, Callable[[], Regions]]:
    """What makes each kind of regions of an image."""
    image = read_image(record.image, record.decoding)
    pieces = pieces_of(truth)
    return {
        "felzenszwalb": lambda: superpixels(image, FELZENSZWALB),
        "slic": lambda: superpixels(image, SLIC),
        "pieces (oracle)": lambda: of_masks(pieces, truth.shape),
        "pieces cut into four (oracle)": lambda: of_masks(cut(pieces, seed), truth.shape),
        "pieces dilated by 3 (oracle)": lambda: of_masks(dilated(pieces), truth.shape),
    }


def pieces_of(truth: np.ndarray) -> list[np.ndarray]:
    """Connected parts of each class, background included: bool (H, W) each."""
    found = []
    for label in np.setdiff1d(truth, [IGNORE]):
        parts, count = ndimage.label(truth == label, structure=np.ones((3, 3)))
        found += [parts == part for part in range(1, count + 1)]
    return found


def cut(pieces: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Each piece as up to four: its pixels by the nearest of four random ones of it."""
    rng = np.random.default_rng(seed)
    found = []
    for piece in pieces:
        places = np.argwhere(piece)
        centres = places[rng.choice(len(places), min(CUTS, len(places)), replace=False)]
        nearest = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        for number in range(len(centres)):
            part = np.zeros_like(piece)
            part[tuple(places[nearest == number].T)] = True
            found.append(part)
    return found


def dilated(pieces: list[np.ndarray]) -> list[np.ndarray]:
    """Each piece with all pixels within 3 of it, so that neighbours overlap."""
    return [ndimage.distance_transform_edt(~piece) <= DILATION for piece in pieces]


def of_masks(masks: list[np.ndarray], size: tuple[int, ...]) -> Regions:
    """Masks as regions."""
    return make_regions((size[0], size[1]), [mask_runs(mask) for mask in masks])


def filled(record: Record, size: tuple[int, ...]) -> np.ndarray:
    """What boxes alone give: each filled with its class, smaller ones over larger ones; uint8 (H, W)."""
    labels = np.zeros(size, dtype=np.uint8)
    boxes = check_boxes(record, (size[0], size[1]), stop)
    for box in sorted(boxes, key=lambda box: -(box.right - box.left) * (box.bottom - box.top)):
        labels[cells(box)] = box.label
    return labels


def chosen_on_half(tables: Mapping[str, list[np.ndarray]], classes: tuple[str, ...]) -> dict[str, Any]:
    """The best superpixels and rule, without boxes, on the first, third, ... image; what they change on the others.

    Returns:
        ``best``; ``change_where_chosen`` and ``change``, points of mIoU over each half's images.
    """

    def change(name: str, half: int) -> float:
        return miou(np.sum(tables[name][half::2], axis=0), classes) - miou(
            np.sum(tables[WITHOUT][half::2], axis=0), classes
        )

    names = [name for name in tables if name.startswith(("felzenszwalb", "slic")) and "box" not in name]
    best = max(names, key=lambda name: change(name, 0))
    return {"best": best, "change_where_chosen": round(change(best, 0), 2), "change": round(change(best, 1), 2)}


def row(tables: list[np.ndarray], plain: list[np.ndarray], classes: tuple[str, ...]) -> dict[str, float]:
    """mIoU over all images; the mean and standard error of each image's difference; in per cent."""
    change = [miou(table, classes) - miou(other, classes) for table, other in zip(tables, plain, strict=True)]
    error = float(np.std(change, ddof=1) / np.sqrt(len(change))) if len(change) > 1 else 0.0
    return {
        "miou": round(miou(np.sum(tables, axis=0), classes), 2),
        "change_an_image": round(float(np.mean(change)), 2),
        "standard_error": round(error, 2),
    }


def miou(table: np.ndarray, classes: tuple[str, ...]) -> float:
    """Of a table of pixels, in per cent."""
    return 100 * float(summarise(table, classes, "background", boundary=False)["miou"] or 0)


if __name__ == "__main__":
    main()
