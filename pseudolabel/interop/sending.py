"""From the open input of export-masks to what a writer is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pseudolabel.artefacts.atomic import Staging
from pseudolabel.data import Dataset, Record
from pseudolabel.data.layouts.coco import category_ids, image_ids
from pseudolabel.data.records import IGNORE
from pseudolabel.interop.formats import writer_of
from pseudolabel.interop.outgoing import Export, Outgoing
from pseudolabel.labels.inputs import MapsInput
from pseudolabel.options import ExportMasksOptions
from pseudolabel.runtime.progress import Progress


def write_format(
    options: ExportMasksOptions,
    source: MapsInput,
    staging: Staging,
    dataset: Dataset,
    records: Sequence[Record],
    pngs: Sequence[Path],
    kept: Sequence[int],
    progress: Progress,
) -> list[Path]:
    """Write the masks in the format of ``options.as_``.

    Args:
        options: Of export-masks.
        source: What the masks were made from.
        staging: Where all files wait.
        dataset: The data set behind the labels.
        records: Its record of every image, in the source's order.
        pngs: Where the mask of every image will lie, in that order.
        kept: Indices of the images that have a mask.
        progress: Where to report.

    Returns:
        Where the files will lie once they are published.
    """
    assert options.as_ is not None  # the caller has asked
    write, name = writer_of(options.as_)
    numbers = image_ids(dataset)
    images = [
        Outgoing(
            records[index].id,
            number if isinstance(number := numbers[records[index].id], int) else place,
            records[index].image,
            staging.find(pngs[index]),
            source.reader.size(index),
            confidence(source, index) if options.as_ == "label-studio" else None,
        )
        for place, index in enumerate(kept, 1)
    ]
    export = Export(
        dataset.classes,
        (0, *category_ids(dataset)),
        Path(dataset.split).stem,
        dataset.root,
        images,
        options.instances,
        options.workers,
        progress,
    )
    progress.log(f"writing {name} for {options.as_}")
    final = options.out / name
    waiting = staging.place(final)
    write(waiting, export)
    if waiting.is_file():
        return [final]
    return [final / path.relative_to(waiting) for path in waiting.rglob("*") if path.is_file()]


def confidence(source: MapsInput, index: int) -> float | None:
    """How sure the soft labels of one image are: the mean over its pixels of the largest probability.

    Returns:
        In [0, 1]; None where the masks were made of something else.
    """
    if source.header.kind != "soft-labels":
        return None
    maps = [array for label, array in source.reader.maps(index).items() if label != IGNORE]
    scale = 255 if maps and maps[0].dtype == np.uint8 else 1
    return float(np.max(np.stack(maps), axis=0).astype(np.float64).mean() / scale) if maps else None
