"""``export-masks``: soft labels, masks or CAMs in; PNG masks, ``masks.h5``, pictures and other tools' formats out.

All files wait in a folder of their own inside ``--out`` until the last one is complete; then they take their places,
``masks.h5`` last: where it exists, the folder is complete and of one making.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import (
    Header,
    MapsReader,
    MapsWriter,
    check_output,
    child_header,
    open_artefact,
    partial_path,
)
from pseudolabel.artefacts.atomic import STAGED, Staging
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Dataset, reopen_dataset
from pseudolabel.data.palette import mask_path, write_mask
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.export.gallery import OVERLAYS, SHEET, Gallery
from pseudolabel.interop.formats import PLACES, check_format
from pseudolabel.interop.sending import write_format
from pseudolabel.labels.assignment import Thresholds, label_map
from pseudolabel.labels.inputs import MapsInput, MapsTask, each, open_maps, write_images
from pseudolabel.options import ExportMasksOptions
from pseudolabel.runtime.formatting import counted
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress


def export_masks(options: ExportMasksOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Turn every image's maps into one label map, written as a palette PNG and into ``masks.h5``.

    Args:
        options: Labels, thresholds where they are CAMs, the output folder, what else to draw.
        progress: Where to report.

    Returns:
        ``out``, ``masks``, ``images``, ``skipped``, ``also`` (what else was written), ``images_per_second``.

    Raises:
        InputError: Thresholds are missing or superfluous, the labels are of another data set, an id could lead out of
            the folder, or files are in the way.
        DatasetError: A photograph is missing or unreadable, where pictures of it are asked for.
    """
    cost = CostMeter()
    with open_maps(options.labels, options.threshold, "soft-labels", "masks", "cams") as source:
        header = child_header("masks", "export-masks", options, source.parents)
        return write_masks(options, source, header, cost, progress)


def write_masks(
    options: ExportMasksOptions, source: MapsInput, header: Header, cost: CostMeter, progress: Progress
) -> dict[str, Any]:
    """Write the folder of an export; predict-masks ends with it, under a header of its own.

    Args:
        options: As for ``export_masks``.
        source: The open labels.
        header: Of ``masks.h5``.
        cost: The meter started with the stage.
        progress: Where to report.

    Returns:
        As ``export_masks``.
    """
    dataset = open_dataset(options, source)
    records = dataset.find(source.images.ids, options.labels) if dataset else []
    check_output(options.artefact, overwrite=options.overwrite)
    pngs = mask_paths(options, source.images.ids)
    writer = MapsWriter(options.artefact, header, source.images, dtype="uint8", cost=cost, overwrite=options.overwrite)
    seen: Counter[bool] = Counter()

    def noted(found: np.ndarray | str) -> tuple[np.ndarray | str]:
        """The label map, counted by whether it has an object."""
        if not isinstance(found, str):
            seen[bool((found % IGNORE).any())] += 1
        return (found,)

    with writer, staged(options, writer) as staging:
        done = writer.done
        work = partial(make_mask, kind=source.header.kind, thresholds=source.thresholds)
        tasks = ((source.task(index), staging.place(pngs[index])) for index in range(done, len(pngs)))
        made = each(ordered_map(work, tasks, workers=options.workers), noted)
        write_images(writer, made, len(pngs), progress)
        if seen[False] and not seen[True]:
            progress.warn(nothing_found(header.stage, seen[False]))
        skipped = {name for name, _ in writer.skipped}
        kept = [index for index, name in enumerate(source.images.ids) if name not in skipped]
        also: list[Path] = []
        if dataset is not None:
            also = Gallery(options, source, staging, dataset, records, pngs, kept).make(progress)
        if dataset is not None and options.as_ is not None:
            also += write_format(options, source, staging, dataset, records, pngs, kept, progress)
        staging.publish(stale=earlier_files(options) - {pngs[index] for index in kept} - set(also))
    return {
        "out": str(options.out),
        "masks": str(options.artefact),
        "images": len(kept),
        "skipped": len(skipped),
        "also": sorted({str(options.out / path.relative_to(options.out).parts[0]) for path in also}),
        "images_per_second": cost.read(len(pngs) - done)["images_per_second"],
    }


def nothing_found(stage: str, count: int) -> str:
    """What to say of masks in which there is no object."""
    if stage == "predict-masks":
        return f"the network found no object in any of {counted(count, 'image')}"
    return f"none of the {count} masks has a pixel of an object: nothing can be learnt from them"


@contextmanager
def staged(options: ExportMasksOptions, writer: MapsWriter) -> Iterator[Staging]:
    """Where files wait; after an error of the input, none that no other run could go on from."""
    staging = Staging(options.out, fresh=writer.done == 0)
    try:
        yield staging
    except InputError:
        if not writer.committed:
            staging.forget()
        raise


def open_dataset(options: ExportMasksOptions, source: MapsInput) -> Dataset | None:
    """The data set behind the labels, where photographs or their names are needed.

    Raises:
        InputError: ``--dataset`` names another one, its classes are others, or instances are asked for and not written.
    """
    found = source.header.dataset.get("dataset")
    if options.dataset is not None and found is not None and options.dataset != found:
        raise InputError(
            f"--dataset {options.dataset}: {options.labels} has labels of a {found} data set; "
            f"pass --dataset {found} or leave it out"
        )
    if options.instances and options.as_ in (None, "hf", "mmseg"):
        raise InputError("--instances is for --as with a format of objects, such as coco; add it, or leave this out")
    if not (options.overlays or options.contact_sheet or options.as_):
        return None
    dataset = reopen_dataset(source.header.dataset, root=options.root)
    dataset.require_classes(source.header.classes, options.labels, masks=True)
    if options.as_ is not None:
        check_format(options.as_, dataset.classes, [record.image for record in dataset.records])
    return dataset


def mask_paths(options: ExportMasksOptions, names: Sequence[str]) -> list[Path]:
    """Where each image's PNG goes.

    Raises:
        InputError: An id could lead out of the folder or is taken, or there is a file that nobody asked to replace.
    """
    paths = [mask_path(options.out, name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if path == options.out / SHEET or name.split("/")[0] in (OVERLAYS, STAGED, *PLACES):
            raise InputError(f"image id {name!r} is the name of something else in {options.out}; rename the image")
    if not options.overwrite and not partial_path(options.artefact).exists():
        there = next((path for path in paths if path.exists()), None)
        if there is not None:
            raise InputError(f"{there} exists already; pass --overwrite to replace it, or another --out")
    return paths


def make_mask(task: tuple[MapsTask, Path], *, kind: str, thresholds: Thresholds | None) -> np.ndarray | str:
    """Write one image's PNG and return its label map, or why there is none; runs in a worker process.

    Args:
        task: The image's maps and where the PNG goes.
        kind: Of the artefact that the maps are from.
        thresholds: By class index, for CAMs.

    Returns:
        uint8 (H, W), 255 = unlabelled.
    """
    item, path = task
    if item.skipped is not None:
        return item.skipped
    found = item.maps[0] if kind == "masks" else label_map(item.maps, item.size, thresholds)
    write_mask(path, found)
    return found


def earlier_files(options: ExportMasksOptions) -> set[Path]:
    """What the export that is replaced had written, if there is one and it can still be read."""
    try:
        with open_artefact(options.artefact, "masks") as artefact:
            names = MapsReader(artefact).images.ids
    except ArtefactError:
        return set()
    folders = (options.out, options.out / OVERLAYS)
    found = {mask_path(folder, name) for folder in folders for name in names} | {options.out / SHEET}
    for place in (options.out / place for place in PLACES):  # a format's folder is the export's own, and replaced whole
        found |= {place} if place.is_file() else {path for path in place.rglob("*") if path.is_file()}
    return found
