"""Ground truth: which images have some, whether it holds anything, and what to say where it does not match."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pseudolabel.artefacts.header import Input
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.lists import files_below
from pseudolabel.data.mask_files import MaskFiles
from pseudolabel.data.names import file_named
from pseudolabel.data.records import IGNORE, Dataset, Record
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular, stands
from pseudolabel.runtime.formatting import counted

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


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


def require_objects(dataset: Dataset, records: Iterable[Record]) -> None:
    """Refuse ground truth in which no object class occurs: whatever is compared with it scores high or teaches nothing.

    It reads masks until it finds an object; those that cannot be read are left to whoever reads them all.

    Args:
        dataset: Where the records are from.
        records: The images whose masks are used.

    Raises:
        DatasetError: There is none in any of the masks.
    """
    images, seen = 0, set[int]()
    for record in records:
        try:
            labels = dataset.read_mask(record)
        except DatasetError:
            continue
        seen |= set(np.bincount(labels.ravel(), minlength=256).nonzero()[0].tolist())
        images += 1
        if seen - {0, IGNORE}:
            return
    if images:
        raise DatasetError(without_objects(dataset, images, seen))


def without_objects(dataset: Dataset, images: int, seen: Collection[int]) -> str:
    """What to say of ground truth in which no object class occurs.

    Args:
        dataset: Where it is from.
        images: In how many masks.
        seen: The labels that do occur, 0 and 255.
    """
    words = " and ".join(word for label, word in ((0, "background"), (IGNORE, "ignored pixels")) if label in seen)
    found = f"the ground truth of split {dataset.split} of {dataset.root} holds {words} and no class in {images} images"
    if not isinstance(dataset.read_mask, MaskFiles):
        return f"{found}; look for the annotations of its objects with 'pseudolabel data check'"
    if len(dataset.classes) == 1:
        return f"{found}; what its classes are is not known: name them in {dataset.root / 'classes.txt'}"
    name = dataset.classes[1] if len(dataset.classes) == 2 else "CLASS"
    value = "255" if IGNORE in seen and dataset.mask_values is None else "VALUE"
    return f"{found}; if {value} stands for a class in its masks, pass --mask-values {value}={name}"


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
