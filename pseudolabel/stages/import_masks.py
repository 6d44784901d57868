"""``import-masks``: masks that people have corrected in another tool in, a ``masks`` artefact out.

The artefact holds every image of the masks that were corrected: those in the file as they are there, the others as they
were. It says how many images and pixels were changed, and that people did it: what is made of it is no longer learnt
from weak labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.artefacts import Header, MapsReader, MapsWriter, check_output, child_header, open_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data.inputs import annotations_input
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.interop.formats import reader_of
from pseudolabel.interop.incoming import Correction, Parent
from pseudolabel.options import ImportMasksOptions
from pseudolabel.runtime.progress import Progress


def import_masks(options: ImportMasksOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Read corrected masks and write them as the successor of those that were corrected.

    Args:
        options: The corrections, their format, and the masks that were corrected.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``corrected`` (images that the corrections hold), ``changed`` (of them, those with a pixel
        that differs), ``changed_pixels`` (share of all pixels, in [0, 1]), ``skipped``.

    Raises:
        InputError: The corrections do not exist, or a package that reads them is missing.
        DatasetError: They are not what their format says, or of other images, sizes or classes.
        ArtefactError: The masks that were corrected are no masks artefact.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    if not options.corrected.exists():
        raise InputError(f"{options.corrected} does not exist; pass the file or folder that the other tool exported")
    path = options.masks / "masks.h5" if options.masks.is_dir() else options.masks
    with open_artefact(path, "masks") as artefact:
        reader = MapsReader(artefact)
        sizes = {name: size for name, size in reader.images.sizes().items() if name not in reader.skipped}
        parent = Parent(path, artefact.header.classes, sizes)
        found = by_image(options.corrected, reader_of(options.from_)(options.corrected, parent))
        keep = options.unlabelled == "keep"
        changed = count_changes(reader, found, progress, keep=keep)
        header = make_header(options, {path: artefact.header}, len(found), changed, len(sizes))
        with MapsWriter(
            options.out, header, reader.images, dtype="uint8", cost=cost, overwrite=options.overwrite
        ) as writer:
            for index in range(writer.done, len(reader)):
                name = reader.images.ids[index]
                if name in reader.skipped:
                    writer.skip(index, reader.skipped[name])
                else:
                    writer.add(index, corrected(reader.labels(index), found.get(name), keep=keep))
    if not any(changed.values()):
        progress.warn(f"no pixel of {options.corrected} differs from {path}: nothing was corrected")
    return {
        "out": str(options.out),
        "images": len(sizes),
        "corrected": len(found),
        "changed": sum(count > 0 for count in changed.values()),
        "changed_pixels": sum(changed.values()) / max(1, sum(height * width for height, width in sizes.values())),
        "skipped": len(reader.skipped),
    }


def by_image(source: Path, corrections: Any) -> Mapping[str, Correction]:
    """Corrections by image id.

    Raises:
        DatasetError: There is none, or an image stands twice.
    """
    found: dict[str, Correction] = {}
    for item in corrections:
        if item.image in found:
            raise DatasetError(f"{source} holds image {item.image!r} twice; keep one of them")
        found[item.image] = item
    if not found:
        raise DatasetError(f"{source} holds no corrected image; export the annotations from the other tool first")
    return found


def corrected(before: np.ndarray, correction: Correction | None, *, keep: bool) -> np.ndarray:
    """One image's label map after its correction, if there is one.

    Args:
        before: uint8 (H, W), 255 = unlabelled.
        correction: What a file holds of it.
        keep: Whether pixels stay unlabelled that were so and are of no object.

    Returns:
        uint8 (H, W).
    """
    if correction is None:
        return before
    after = correction.draw()
    return np.where((after == 0) & (before == IGNORE), IGNORE, after).astype(np.uint8) if keep else after


def count_changes(
    reader: MapsReader, found: Mapping[str, Correction], progress: Progress, *, keep: bool
) -> dict[str, int]:
    """How many pixels each correction changes, by image id."""
    changed = {}
    with progress.track(len(found), "images compared") as advance:
        for index, name in enumerate(reader.images.ids):
            if name in found:
                before = reader.labels(index)
                changed[name] = int((before != corrected(before, found[name], keep=keep)).sum())
                advance(1)
    return changed


def make_header(
    options: ImportMasksOptions, parents: Mapping[Path, Header], given: int, changed: Mapping[str, int], total: int
) -> Header:
    """The header of the corrected masks: those of their parent, and that people corrected some."""
    parent = next(iter(parents.values()))
    number = sum(count > 0 for count in changed.values())
    said = f"{number} of {total} masks"
    return child_header(
        "masks",
        "import-masks",
        options,
        parents,
        inputs=(annotations_input(options.corrected),),
        protocol={"corrected_by_people": said},
        oracle=(f"{said} corrected by people",) if number else (),
        facts={
            **parent.facts,
            "corrected_by_people": {"images": given, "changed": number, "pixels": sum(changed.values())},
        },
    )
