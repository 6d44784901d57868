"""``import-regions``: others' regions in, a ``regions`` artefact out, which says what model they are from.

Reads, for each image, a folder of binary PNGs, COCO run lengths as SAM's automatic mask generator writes them, or a
label map. Nothing is unpickled.
"""

from __future__ import annotations

from typing import Any

from pseudolabel.artefacts import RegionsWriter, child_header
from pseudolabel.artefacts.header import EXTERNAL, CostMeter
from pseudolabel.data import open_dataset
from pseudolabel.data.inputs import images_of, region_input
from pseudolabel.data.region_files import read_regions
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import ImportRegionsOptions
from pseudolabel.runtime.progress import Progress


def import_regions(options: ImportRegionsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Read a folder of regions for the images of a split.

    Args:
        options: Folder, the model behind the regions, data set.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``regions``, ``without`` (images of no region), ``skipped``.

    Raises:
        InputError: The folder does not exist.
        DatasetError: An image has no regions file, or a file does not hold regions of it (unless ``on_error`` is
            ``skip``).
    """
    if not options.regions.is_dir():
        raise InputError(f"{options.regions} is not a folder of regions")
    dataset = open_dataset(options)
    warn_of_photographs(dataset, progress)
    images = images_of(dataset)
    sizes = images.sizes()
    about = {"model": options.model, "licence": options.licence, "model_trained_on": options.trained_on}
    protocol: dict[str, Any] = {"regions": "imported"}
    if options.model is not None:
        protocol |= {
            "regions": options.model,
            EXTERNAL: [f"{options.model} ({options.licence}), trained on {options.trained_on}"],
        }
    header = child_header(
        "regions",
        "import-regions",
        options,
        {},
        inputs=(dataset.as_input(), region_input(options.regions)),
        protocol=protocol,
        classes=dataset.classes,
        dataset=dataset.spec(),
        facts={"source": "imported", **about},
    )
    written = without = 0
    with RegionsWriter(options.out, header, images, cost=CostMeter(), overwrite=options.overwrite) as writer:
        with progress.track(len(images.ids), "images", done=writer.done) as advance:
            for index in range(writer.done, len(images.ids)):
                try:
                    name = images.ids[index]
                    found = read_regions(options.regions, name, sizes[name], dataset.classes, options.uncovered)
                except DatasetError as error:
                    if options.on_error == "stop":
                        raise
                    writer.skip(index, str(error))
                else:
                    writer.add(index, found)
                    written, without = written + len(found), without + (len(found) == 0)
                advance(1)
        skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": len(images.ids) - skipped,
        "regions": written,
        "without": without,
        "skipped": skipped,
    }
