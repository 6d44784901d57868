"""Ground truth: masks that lie one a file, which images have one, and what to say where they do not match."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from pseudolabel.artefacts.header import Input
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.images import read_label_png
from pseudolabel.data.lists import files_below
from pseudolabel.data.names import file_named
from pseudolabel.data.records import Dataset, Record
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular, stands
from pseudolabel.runtime.formatting import counted


def read_mask_file(record: Record, classes: int) -> np.ndarray:
    """Ground truth of one image.

    Args:
        record: The image.
        classes: How many object classes the data set has.

    Returns:
        uint8 (H, W): 0 background, 1 to ``classes``, 255 ignore.

    Raises:
        DatasetError: The image has no mask, or the mask is unreadable or holds another value.
    """
    if record.mask is None:
        raise DatasetError(f"{record.image} has no ground-truth mask; evaluation and tags from masks need one")
    mask = read_label_png(record.mask)
    if int((mask + np.uint8(1)).max()) > classes + 1:  # 255 wraps to 0, which leaves one pass over the pixels
        wrong = np.unique(mask[(mask > classes) & (mask != 255)])
        raise DatasetError(f"{record.mask} holds label {wrong[0]}; wanted 0 to {classes}, or 255 for ignore")
    return mask


def index_masks(folders: Sequence[Path]) -> dict[str, Path]:
    """Mask files by image id: PNGs of the first folder that has one, else a picture of another format.

    Reading the latter says what is wrong with it. Were they left out, the images would pass for ones without a mask.

    Args:
        folders: Where to look.
    """
    found: dict[str, Path] = {}
    for endings in ((".png",), tuple(ending for ending in SUFFIXES if ending != ".png")):
        for folder in folders:
            for name, path in files_below(folder, endings):
                found.setdefault(name, path)
    return found


def find_mask(name: str, masks: Mapping[str, Path], folders: Sequence[Path]) -> Path | None:
    """The mask file of an image, if it has one.

    Args:
        name: The image's id.
        masks: As ``index_masks`` found them, which follows no link to a folder inside the folders.
        folders: Where to look for the PNG of an id that has folders, in case one of them is such a link.
    """
    if name in masks or "/" not in name:
        return masks.get(name)
    paths = (file_named(folder, f"{name}.png") for folder in folders)
    return next((path for path in paths if stands(path)), None)


def foreign_masks(records: Sequence[Record]) -> list[str]:
    """The complaint about masks that are no PNG files by name: one line a format, which counts them."""
    masks = [record.mask for record in records if record.mask is not None and record.mask.suffix.lower() != ".png"]
    found = []
    for ending in sorted({path.suffix.lower() for path in masks}):
        same = [path for path in masks if path.suffix.lower() == ending]
        lossy = "lossy compression alters class indices: make them anew as"
        todo = lossy if ending in _LOSSY else "convert to"
        count = counted(len(same), "mask")
        found.append(f"{count} with the ending {ending} (first: {same[0]}); {todo} 8-bit palette or grey PNG")
    return found


_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
_NAMED = 5  # how many of a long list an error names


def records_of(dataset: Dataset, found: Collection[str], skipped: Mapping[str, str], source: Path) -> list[Record]:
    """The records of a split, once it is sure that each has a mask and that there are no others.

    Args:
        dataset: The split.
        found: Ids of the masks.
        skipped: Ids of images that an earlier stage says it could not use, which are left out.
        source: Where the masks are, for the message.

    Raises:
        DatasetError: Masks are missing or superfluous; the line counts both and names the first of each.
    """
    wanted = [record for record in dataset.records if record.id not in skipped]
    known = {record.id for record in wanted}
    missing = [record.id for record in wanted if record.id not in found]
    extra = [name for name in found if name not in known]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(wanted)} images have no mask ({named(missing)})")
    if extra:
        faults.append(f"{len(extra)} masks are of no image of the split ({named(extra)})")
    if faults:
        raise DatasetError(
            f"{source} does not match split {dataset.split} of {dataset.root}: {'; '.join(faults)}; "
            "make what is missing, remove what is too much, or pass the --split that the masks are of"
        )
    if not wanted:
        raise DatasetError(f"{source} has no image to score: earlier stages have skipped all {len(skipped)}")
    return wanted


def ground_truth_input(dataset: Dataset, ids: Collection[str]) -> Input:
    """Ground truth that a stage learns from, as one input of its artefact.

    Args:
        dataset: The split.
        ids: Of the images whose masks it learns from. The digest covers them; one that cannot be read counts as such.
    """
    digest = hashlib.sha256()
    for record in dataset.records:
        if record.id in ids:
            digest.update(f"{record.id}\n".encode())
            digest.update(_mask_bytes(dataset, record))
    return Input("truth", str(dataset.root), digest.hexdigest())


def _mask_bytes(dataset: Dataset, record: Record) -> bytes:
    """The file of a mask, or, where the layout keeps no file an image, its pixels."""
    try:
        return dataset.read_mask(record).tobytes() if record.mask is None else read_regular(record.mask)
    except (DatasetError, OSError) as error:
        return str(error).encode()


def complain(what: str, faults: Sequence[str]) -> None:
    """Raise an error that counts the faults and names the first of them, if there are any.

    Raises:
        DatasetError: There are.
    """
    if faults:
        raise DatasetError(f"{what}: {len(faults)} faults: {named(faults, '; ')}")


def named(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items of a list, and how many more there are."""
    more = f"{separator}and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return separator.join(items[:_NAMED]) + more
