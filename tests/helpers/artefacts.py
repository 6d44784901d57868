"""Artefacts of a few small maps for the tests of the stages that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import Header, Images, MapsReader, MapsWriter, open_artefact, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, image_size, load_dataset
from pseudolabel.runtime.progress import Progress

Maps = Mapping[int, np.ndarray] | np.ndarray


def synthetic(root: Path, split: str = "train") -> Dataset:
    return load_dataset({"dataset": "voc", "root": str(root), "split": split})


def write_maps(
    path: Path,
    kind: str,
    dataset: Dataset,
    maps: Sequence[Maps | str],
    *,
    names: Sequence[str] | None = None,
    **header: Any,
) -> Path:
    """An artefact of the data set's first images: the maps of each, or why it was skipped."""
    records = dataset.records[: len(maps)]
    sizes = np.array([image_size(record.image) for record in records])
    images = Images(tuple(names or [record.id for record in records]), sizes[:, 0], sizes[:, 1])
    about = {"stage": "make-cams", "options": {}, "classes": dataset.classes, "dataset": dataset.spec()} | header
    dtype = {"cams": "float16", "soft-labels": "uint8", "masks": "uint8"}[kind]
    with MapsWriter(path, Header(kind, **about), images, dtype=dtype) as writer:
        for index, found in enumerate(maps):
            if isinstance(found, str):
                writer.skip(index, found)
            else:
                writer.add(index, found)
    return path


def blurred_truth(dataset: Dataset, count: int) -> list[dict[int, np.ndarray]]:
    """CAMs that are ground truth averaged over squares of 8 pixels."""
    found = []
    for record in dataset.records[:count]:
        mask = dataset.read_mask(record)
        height, width = mask.shape[0] // 8, mask.shape[1] // 8
        squares = mask[: height * 8, : width * 8].reshape(height, 8, width, 8)
        found.append({label: (squares == label).mean(axis=(1, 3)) for label in record.tags or ()})
    return found


def write_thresholds(
    path: Path, classes: Sequence[str], value: float, low: float | None = None, high: float | None = None
) -> Path:
    arrays = {
        f"thresholds/{name}": np.full(len(classes), np.nan if number is None else number)
        for name, number in (("value", value), ("low", low), ("high", high))
    }
    facts = {"method": "fixed", "fitted_on": "nothing"}
    header = Header("thresholds", "search-threshold", {}, tuple(classes), protocol={"threshold": value}, facts=facts)
    return write_artefact(path, header, arrays, CostMeter())


def read_maps(path: Path) -> list[dict[int, np.ndarray]]:
    with open_artefact(path) as artefact:
        reader = MapsReader(artefact)
        return [reader.maps(index) for index in range(len(reader))]


class Meanwhile(Progress):
    """Does something once, after the first image."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._waiting = [act]

    @contextmanager
    def track(self, total: int, what: str, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        def advance(number: int) -> None:
            while self._waiting:
                self._waiting.pop()()

        yield advance


class Interrupting(Progress):
    """Stops the work, as Ctrl-C does, after so many items; remembers how many were done when it began."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.began: int | None = None

    @contextmanager
    def track(self, total: int, what: str, *, done: int = 0):
        self.began = done

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done == self.after:
                raise KeyboardInterrupt

        yield advance


def refiner_inputs(folder: Path, dataset: Dataset, count: int) -> dict[str, Path]:
    """CAMs of the data set's first images, and thresholds with a low and a high one: what every refiner reads."""
    protocol = {"split": "train", "scales": [1.0]}
    cams = write_maps(folder / "cams.h5", "cams", dataset, blurred_truth(dataset, count), protocol=protocol)
    return {"cams": cams, "threshold": write_thresholds(folder / "t.h5", dataset.classes, 0.4, 0.2, 0.7)}


def interrupted(stage: Callable[..., Any], options: Any, after: int) -> None:
    """Run a stage and break it off."""
    try:
        stage(options, Interrupting(after))
    except KeyboardInterrupt:
        return
    raise AssertionError("the stage ended before it could be interrupted")
