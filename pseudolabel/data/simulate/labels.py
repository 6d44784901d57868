"""``data scribbles``, ``data points`` and ``data boxes``: weak labels simulated from dense masks, and saying so.

The same settings give the same bytes. Every image has random numbers of its own, from the seed and its id.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts.atomic import new_folder
from pseudolabel.data.ground_truth import require_objects
from pseudolabel.data.images import read_label_png
from pseudolabel.data.instances import InstanceMasks
from pseudolabel.data.opening import load_dataset
from pseudolabel.data.palette import mask_path, write_mask
from pseudolabel.data.records import Record
from pseudolabel.data.shapes import Box, Point
from pseudolabel.data.simulate.strokes import jittered_box, middle_point, stroke
from pseudolabel.data.weak.boxes import annotation_text
from pseudolabel.data.weak.manifest import write_manifest
from pseudolabel.data.weak.points import HEADING, TABLE
from pseudolabel.data.weak.scribbles import UNLABELLED
from pseudolabel.errors import DatasetError
from pseudolabel.options import (
    DataOptions,
    SimulateBoxesOptions,
    SimulateOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
)
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

_SPECK = 0.001  # of an image: smaller pieces of an object class are left out where it has a larger one
_GROUND = 0.05  # of an image: the same for background
_ELSEWHERE = {*DataOptions.model_fields, "from_", "out", "workers"}  # what does not say how marks look
_CORNERS = np.ones((3, 3))  # pixels that touch at a corner are of one piece


@dataclass(frozen=True)
class Scene:
    """What a simulation sees of one image.

    Attributes:
        objects: Class index and pixels, bool (H, W), of each object.
        ground: Pixels, bool (H, W), of each piece of background, the largest first.
        rng: The only source of randomness.
    """

    objects: Sequence[tuple[int, np.ndarray]]
    ground: Sequence[np.ndarray]
    rng: np.random.Generator


@dataclass(frozen=True)
class Truth:
    """Where the objects of an image are known from.

    Attributes:
        read_mask: The data set's reader of ground truth.
        folder: VOC's ``SegmentationObject``, where the data set has it.
    """

    read_mask: Callable[[Record], np.ndarray]
    folder: Path | None = None

    @property
    def instances(self) -> str:
        """What tells objects of one class apart."""
        if isinstance(self.read_mask, InstanceMasks):
            return "annotations"
        return self.folder.name if self.folder else "connected pieces"

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Class indices uint8 (H, W), and the number of the object that each pixel shows, if that is known.

        Raises:
            DatasetError: The image has no mask, or its files do not fit together.
        """
        if isinstance(self.read_mask, InstanceMasks):
            return self.read_mask.draw(record)
        labels = self.read_mask(record)
        path = self.folder / f"{record.id}.png" if self.folder else None
        if path is None or not path.is_file():
            return labels, None
        numbers = read_label_png(path)
        if numbers.shape != labels.shape:
            raise DatasetError(
                f"{path} is {numbers.shape[1]} x {numbers.shape[0]} pixels, "
                f"{record.mask} {labels.shape[1]} x {labels.shape[0]}"
            )
        return labels, np.where(numbers == UNLABELLED, 0, numbers)


def simulate_scribbles(options: SimulateScribblesOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Draw one stroke through each object, and on each large piece of background, into ``ID.png``.

    Args:
        options: The data set, where to write, and how strokes look.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``marks`` (how many strokes), ``unlabelled`` (how many images got none), ``instances``
        (what told objects of one class apart), ``seed``, ``oracle``.

    Raises:
        InputError: The folder holds something already.
        DatasetError: An image has no mask, or the data set is at fault.
    """
    return _simulate("scribbles", options, _strokes, _write_scribbles, progress)


def simulate_points(options: SimulatePointsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Set one point in each object, and one on the background, in ``points.csv``; otherwise as scribbles."""
    return _simulate("points", options, _points, _write_points, progress)


def simulate_boxes(options: SimulateBoxesOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Put one box around each object, in ``ID.xml``; otherwise as scribbles."""
    return _simulate("boxes", options, _boxes, _write_boxes, progress)


def find_objects(labels: np.ndarray, numbers: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    """The objects in a mask.

    Args:
        labels: uint8 (H, W), class indices, 255 where ignored.
        numbers: int (H, W), which object a pixel shows, 0 where none; None takes each connected piece of a class for an
            object.

    Returns:
        Class index and pixels, bool (H, W), of each, in the order of classes, then of numbers. Specks are left out
        where their class has something larger.
    """
    found: list[tuple[int, np.ndarray]] = []
    for label in np.unique(labels[(labels != 0) & (labels != UNLABELLED)]).tolist():
        found += [(label, piece) for piece in _pieces(labels == label, numbers, _SPECK)]
    return found


def _simulate(
    kind: str,
    options: SimulateOptions,
    marks_of: Callable[[Scene, Any], list[Any]],
    write: Callable[[Path, Record, tuple[int, int], list[Any], Sequence[str]], None],
    progress: Progress,
) -> dict[str, Any]:
    """Make the marks of every image of a split, and write them and their manifest."""
    dataset = load_dataset(options.model_dump())
    require_objects(dataset, dataset.records)
    objects = dataset.root / "SegmentationObject"
    truth = Truth(dataset.read_mask, objects if objects.is_dir() else None)
    see = partial(_simulated, truth=truth, marks_of=marks_of, options=options)
    count, unlabelled = 0, []
    with (
        new_folder(options.out) as folder,
        progress.track(len(dataset.records), "images") as advance,
        closing(ordered_map(see, dataset.records, workers=options.workers)) as results,
    ):
        for record, (size, marks) in zip(dataset.records, results, strict=True):
            count += len(marks)
            if marks:
                write(folder, record, size, marks, dataset.classes)
            else:
                unlabelled.append(record.id)
            advance(1)
        facts = {
            "from": "pixel masks",
            "dataset": dataset.name,
            "root": str(dataset.root),
            "split": dataset.split,
            "instances": truth.instances,
            **{name: value for name, value in options.model_dump().items() if name not in _ELSEWHERE},
            "unlabelled": unlabelled,
        }
        write_manifest(folder, kind, facts)
    return {
        "out": str(options.out),
        "images": len(dataset.records),
        "marks": count,
        "unlabelled": len(unlabelled),
        "instances": truth.instances,
        "seed": options.seed,
        "oracle": [f"{kind} simulated from pixel masks"],
    }


def _simulated(
    record: Record, truth: Truth, marks_of: Callable[[Scene, Any], list[Any]], options: SimulateOptions
) -> tuple[tuple[int, int], list[Any]]:
    """An image's height and width, and its marks: those of classes that its tags exclude are left out."""
    labels, numbers = truth.read(record)
    objects = [item for item in find_objects(labels, numbers) if record.tags is None or item[0] in record.tags]
    ground = _pieces(labels == 0, None, _GROUND) if getattr(options, "background", False) else []
    ground.sort(key=np.count_nonzero, reverse=True)
    rng = np.random.default_rng([options.seed, zlib.crc32(record.id.encode())])
    return labels.shape, marks_of(Scene(objects, ground, rng), options)


def _strokes(scene: Scene, options: SimulateScribblesOptions) -> list[tuple[int, np.ndarray]]:
    """Class index and pixels, bool (H, W), of each stroke."""
    pieces = [*scene.objects, *((0, piece) for piece in scene.ground)]
    draw = partial(stroke, rng=scene.rng, length=options.length, wobble=options.wobble, width=options.width)
    return [(label, draw(_largest(inside))) for label, inside in pieces]


def _points(scene: Scene, options: SimulatePointsOptions) -> list[Point]:
    pieces = [*scene.objects, *((0, piece) for piece in scene.ground[:1])]
    return [middle_point(inside, label, scene.rng, options.wobble) for label, inside in pieces]


def _boxes(scene: Scene, options: SimulateBoxesOptions) -> list[Box]:
    return [jittered_box(inside, label, scene.rng, options.jitter) for label, inside in scene.objects]


def _write_scribbles(
    folder: Path, record: Record, size: tuple[int, int], strokes: list[tuple[int, np.ndarray]], _: Sequence[str]
) -> None:
    labels = np.full(size, UNLABELLED, dtype=np.uint8)
    for label, drawn in strokes:
        labels[drawn] = label
    write_mask(mask_path(folder, record.id), labels)


def _write_points(
    folder: Path, record: Record, _: tuple[int, int], points: list[Point], classes: Sequence[str]
) -> None:
    table = folder / TABLE
    heading = [] if table.exists() else [HEADING]
    with table.open("a", encoding="utf-8", newline="") as file:
        rows = [(record.id, classes[point.label], point.x, point.y) for point in points]
        csv.writer(file, lineterminator="\n").writerows([*heading, *rows])


def _write_boxes(folder: Path, record: Record, size: tuple[int, int], boxes: list[Box], classes: Sequence[str]) -> None:
    path = folder / f"{record.id}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(annotation_text(record.image.name, size, boxes, classes), encoding="utf-8")


def _pieces(inside: np.ndarray, numbers: np.ndarray | None, share: float) -> list[np.ndarray]:
    """An area's parts by their numbers, or connected ones where it has none: bool (H, W) each.

    Those under this share of the image are left out, unless none is larger: then the largest is kept.
    """
    from scipy import ndimage

    if numbers is None or not numbers[inside].any():
        numbers = ndimage.label(inside, _CORNERS)[0]
    areas = np.bincount(numbers[inside], minlength=1)
    areas[0] = 0
    enough = max(1.0, min(share * inside.size, float(areas.max())))
    return [inside & (numbers == number) for number in np.flatnonzero(areas >= enough)]


def _largest(inside: np.ndarray) -> np.ndarray:
    """The largest connected piece, the first of several."""
    from scipy import ndimage

    numbers, _ = ndimage.label(inside, _CORNERS)
    return np.asarray(numbers == np.bincount(numbers.ravel())[1:].argmax() + 1)
