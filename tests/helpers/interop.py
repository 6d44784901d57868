"""Masks with all that other tools' formats find hard, for the tests of writers and readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import Dataset, image_size
from pseudolabel.options import ExportMasksOptions, ImportMasksOptions
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.import_masks import import_masks
from tests.helpers.artefacts import write_maps


def hard_masks(dataset: Dataset, count: int = 3, *, unlabelled: bool = True) -> list[np.ndarray]:
    """Label maps with holes, an island in a hole, several pieces, touching classes, lines, single pixels, and 255."""
    found = []
    for index, record in enumerate(dataset.records[:count]):
        mask = np.zeros(image_size(record.image), dtype=np.uint8)
        mask[2:24, 3:33] = 1
        mask[5:20, 8:26] = 0  # a hole
        mask[9:15, 12:20] = 1  # an island in it
        mask[11:13, 14:16] = 0  # and a hole in that
        mask[2:24, 33:45] = 2  # touches class 1
        mask[8:12, 33:36] = 1  # and class 1 reaches into it
        mask[30:33, 30:33], mask[33:36, 33:36] = 1, 1  # pieces that touch at a corner
        mask[38, 5:20], mask[28:36, 7] = 2, 2  # lines
        mask[26, 40], mask[-1, -1], mask[0, 0] = 1, 2, 1  # single pixels, in corners too
        mask[40 + index, :6] = 3
        if unlabelled:
            mask[42:46, 20:44] = 255
            mask[16:18, 0:44] = 255
        found.append(mask)
    found[-1][:] = 0  # nothing at all
    return found


def exported(folder: Path, dataset: Dataset, masks: list[np.ndarray], **values: Any) -> Path:
    """The folder of an export of these masks."""
    path = write_maps(folder / "in.h5", "masks", dataset, masks, protocol={"split": "train"}, stage="export-masks")
    export_masks(ExportMasksOptions(labels=path, out=folder / "out", workers=1, **values))
    return folder / "out"


def imported(corrected: Path, masks: Path, out: Path, name: str, **values: Any) -> dict[str, Any]:
    """What import-masks says."""
    return import_masks(ImportMasksOptions(corrected=corrected, masks=masks, out=out, from_=name, **values))


def labels_of(path: Path) -> list[np.ndarray]:
    """Every label map of a masks artefact."""
    with open_artefact(path, "masks") as artefact:
        reader = MapsReader(artefact)
        return [reader.labels(index) for index in range(len(reader))]


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def round_trip(folder: Path, dataset: Dataset, name: str, place: str, back: str | None = None, **values: Any) -> None:
    """Export, import untouched, and find every pixel again, 255 included, and nothing said to be corrected."""
    masks = hard_masks(dataset)
    out = exported(folder, dataset, masks, as_=name, **values)
    result = imported(out / place, out, folder / "back.h5", back or name)
    assert_same(labels_of(folder / "back.h5"), masks)
    assert (result["images"], result["corrected"], result["changed"]) == (3, 3, 0)
    assert read_header(folder / "back.h5").oracle == ()
