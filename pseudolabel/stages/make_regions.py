"""``make-regions``: photographs in, regions without classes out, computed in parallel over processes."""

from __future__ import annotations

from functools import partial
from typing import Any

from pseudolabel.artefacts import RegionsWriter, check_output, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.run_lengths import Regions
from pseudolabel.artefacts.schema import MOST_REGIONS
from pseudolabel.data import Record, open_dataset
from pseudolabel.data.inputs import images_of, read_photograph
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.errors import DatasetError
from pseudolabel.labels.inputs import each, write_images
from pseudolabel.labels.superpixels import SuperpixelSettings, require_superpixels, superpixels
from pseudolabel.options import MakeRegionsOptions
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress


def make_regions(options: MakeRegionsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Divide every image of a split.

    Args:
        options: Method, its settings, data set.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``regions``, ``skipped``, ``images_per_second``.

    Raises:
        MissingExtraError: The method's package is not installed.
        DatasetError: A photograph is missing or unreadable, or falls into too many regions (unless ``on_error`` is
            ``skip``).
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    require_superpixels(options.method)
    settings = chosen_settings(options)
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    images = images_of(dataset)
    sizes = images.sizes()
    header = child_header(
        "regions",
        "make-regions",
        options,
        {},
        inputs=(dataset.as_input(),),
        protocol={"regions": settings.words},
        classes=dataset.classes,
        dataset=dataset.spec(),
        facts={"source": settings.words, "model": None, "licence": None, "model_trained_on": None},
    )
    work = partial(divide, settings=settings, skip=options.on_error == "skip")
    written = 0

    def counted(found: Regions | str) -> tuple[Regions | str]:
        nonlocal written
        written += 0 if isinstance(found, str) else len(found)
        return (found,)

    with RegionsWriter(options.out, header, images, cost=cost, overwrite=options.overwrite) as writer:
        done = writer.done
        tasks = ((record, sizes[record.id]) for record in dataset.records[done:])
        made = each(ordered_map(work, tasks, workers=options.workers), counted)
        write_images(writer, made, len(images.ids), progress)
    skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": len(images.ids) - skipped,
        "regions": written,
        "skipped": skipped,
        "images_per_second": cost.read(len(images.ids) - done)["images_per_second"],
    }


def chosen_settings(options: MakeRegionsOptions) -> SuperpixelSettings:
    """The settings that the method has."""
    if options.method == "felzenszwalb":
        sigma = 0.8 if options.sigma is None else options.sigma
        return SuperpixelSettings("felzenszwalb", sigma, scale=options.scale, minimum=options.minimum)
    return SuperpixelSettings("slic", options.sigma or 0.0, segments=options.segments, compactness=options.compactness)


def divide(task: tuple[Record, tuple[int, int]], *, settings: SuperpixelSettings, skip: bool) -> Regions | str:
    """The regions of one image, or why there are none; runs in a worker process.

    Args:
        task: The image's record; its height and width.
        settings: How to divide it.
        skip: Whether a fault is a reason instead of an error.

    Raises:
        DatasetError: The photograph is unreadable or falls into too many regions, and ``skip`` is false.
    """
    record, size = task
    try:
        found = superpixels(read_photograph(record, size), settings)
        if len(found) > MOST_REGIONS:
            raise DatasetError(
                f"{record.image} falls into {len(found)} regions; wanted at most {MOST_REGIONS}: raise --scale or "
                "--minimum"
            )
    except DatasetError as error:
        if skip:
            return str(error)
        raise
    return found
