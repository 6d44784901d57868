"""What export-masks draws beside the masks: overlays and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pseudolabel.artefacts.atomic import Staging
from pseudolabel.artefacts.maps import at_size, bands
from pseudolabel.data import Dataset, Record
from pseudolabel.data.images import read_label_png
from pseudolabel.data.inputs import read_photograph
from pseudolabel.data.palette import mask_path, write_png
from pseudolabel.errors import DatasetError
from pseudolabel.export.pictures import contact_sheet, overlay
from pseudolabel.labels.inputs import MapsInput, MapsTask
from pseudolabel.options import ExportMasksOptions
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

OVERLAYS = "overlays"
SHEET = "contact-sheet.png"


@dataclass(frozen=True)
class Drawing:
    """One overlay as a worker process gets it.

    Attributes:
        item: The image's maps.
        record: The image.
        png: Where its mask lies.
        truth: Its ground truth uint8 (H, W), if there is any.
        place: Where the picture goes.
    """

    item: MapsTask
    record: Record
    png: Path
    truth: np.ndarray | None
    place: Path


@dataclass(frozen=True)
class Gallery:
    """What is drawn beside the masks.

    Attributes:
        options: Of export-masks.
        source: What the masks were made from.
        staging: Where all files wait.
        dataset: The data set behind the labels.
        records: Its record of every image, in the source's order.
        pngs: Where the mask of every image will lie, in that order.
        kept: Indices of the images that have a mask.
    """

    options: ExportMasksOptions
    source: MapsInput
    staging: Staging
    dataset: Dataset
    records: Sequence[Record]
    pngs: Sequence[Path]
    kept: Sequence[int]

    def make(self, progress: Progress) -> list[Path]:
        """Make all that was asked for.

        Returns:
            Where the files will lie once they are published.
        """
        options, made = self.options, []
        order = np.random.default_rng(options.seed).permutation(self.kept).tolist()
        if options.overlays:
            progress.log(f"drawing {min(options.overlays, len(order))} overlays")
            made += self.overlays(order[: options.overlays])
        if options.contact_sheet and order:
            made.append(options.out / SHEET)
            self.sheet(sorted(order[: options.contact_sheet]), self.staging.place(made[-1]))
        return made

    def overlays(self, chosen: Sequence[int]) -> list[Path]:
        """Draw one overlay an image, in parallel; returns where they will lie."""
        made = [mask_path(self.options.out / OVERLAYS, self.records[index].id) for index in chosen]
        work = partial(draw_overlay, kind=self.source.header.kind, classes=self.dataset.classes)
        drawings = (self.drawing(index, path) for index, path in zip(chosen, made, strict=True))
        with closing(ordered_map(work, drawings, workers=self.options.workers)) as results:
            for _ in results:
                pass
        return made

    def drawing(self, index: int, path: Path) -> Drawing:
        """All that one overlay shows; ground truth of another size than the photograph is left out."""
        record, item = self.records[index], self.source.task(index)
        try:
            truth = self.dataset.read_mask(record)
        except DatasetError:
            truth = None
        if truth is not None and truth.shape != item.size:
            truth = None
        return Drawing(item, record, self.staging.find(self.pngs[index]), truth, self.staging.place(path))

    def sheet(self, chosen: Sequence[int], path: Path) -> None:
        """Draw the contact sheet, in the order of the images."""

        def pictures() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            for index in chosen:
                labels = read_label_png(self.staging.find(self.pngs[index]))
                photograph = read_photograph(self.records[index], self.source.reader.size(index))
                yield self.records[index].id, photograph, labels

        write_png(path, contact_sheet(pictures(), len(chosen), self.dataset.classes))


def draw_overlay(drawing: Drawing, *, kind: str, classes: tuple[str, ...]) -> None:
    """Draw one overlay; runs in a worker process.

    Args:
        drawing: What it shows.
        kind: Of the artefact that the maps are from: CAMs and soft labels have a heat map.
        classes: Names by class index.
    """
    heat, item = None, drawing.item
    if kind != "masks":
        shown = {label: found for label, found in item.maps.items() if kind == "cams" or label == 0}
        parts = (at_size(shown, item.size, columns)[1] for columns in bands(len(shown), item.size))
        strongest = np.concatenate([part.max(axis=0, initial=0) for part in parts], axis=1)
        heat = strongest if kind == "cams" else 1 - strongest
    image = read_photograph(drawing.record, item.size)
    picture = overlay(image, read_label_png(drawing.png), classes, heat=heat, truth=drawing.truth)
    write_png(drawing.place, picture)
