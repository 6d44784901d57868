"""Files that stages read beside artefacts: photographs of a known size, folders of others' files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pseudolabel.artefacts import Images, Input
from pseudolabel.data.images import image_size, read_image
from pseudolabel.data.lists import files_below
from pseudolabel.data.records import Dataset, Record
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import absolute, open_regular, read_regular
from pseudolabel.runtime.progress import Progress


def read_photograph(record: Record, size: tuple[int, int]) -> np.ndarray:
    """Read a photograph that must have the size its maps were made for.

    Args:
        record: The image.
        size: Height and width, pixels.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DatasetError: It is unreadable, or of another size.
    """
    image = read_image(record.image, record.decoding)
    require_size(record, image.shape[:2], size)
    return image


def require_size(record: Record, found: Sequence[int], wanted: tuple[int, int]) -> None:
    """Refuse a photograph of another height and width than its maps were made for.

    Raises:
        DatasetError: They differ.
    """
    if tuple(found) != wanted:
        raise DatasetError(
            f"{record.image} is {found[1]} x {found[0]} pixels, but its maps were made for {wanted[1]} x {wanted[0]}; "
            "pass --root with the folder that they were made from, or make them again"
        )


def images_of(dataset: Dataset) -> Images:
    """Ids and sizes of a data set's photographs, as an artefact lists them.

    Raises:
        DatasetError: One is unreadable.
    """
    sizes = np.asarray([image_size(record.image) for record in dataset.records], dtype=np.int32).reshape(-1, 2)
    return Images(tuple(record.id for record in dataset.records), sizes[:, 0], sizes[:, 1])


def unreadable(records: Iterable[Record], read: Callable[[Record], object], progress: Progress) -> dict[str, str]:
    """Look at every image, and warn of those that cannot be used.

    Args:
        records: The images.
        read: Reads one; a DatasetError of it is the reason.
        progress: Where to warn.

    Returns:
        Id to reason.
    """
    found = {}
    for record in records:
        try:
            read(record)
        except DatasetError as error:
            found[record.id] = str(error)
            progress.warn(f"skipped: {error}")
    return found


def npy_input(folder: Path) -> Input:
    """A folder of ``.npy`` files as one input of an artefact.

    Its digest covers their names, sizes and times of change: maps of one shape have one size, whatever is in them, and
    to read them all takes as long as importing them.
    """
    digest = hashlib.sha256()
    for name, path in files_below(folder, (".npy",)):
        about = path.stat() if path.exists() else path.lstat()  # a link to nothing is complained of when it is read
        digest.update(f"{name}\t{about.st_size}\t{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return Input("npy", folder.resolve().as_posix(), digest.hexdigest())


def png_input(folder: Path) -> Input:
    """A folder of PNG masks as one input of an artefact; its digest covers their names and bytes."""
    return _content_input("png", folder, (".png",))


def region_input(folder: Path) -> Input:
    """A folder of others' regions as one input of an artefact; its digest covers the files' names and bytes."""
    return _content_input("region-files", folder, (".png", ".json", ".npy"))


def _content_input(kind: str, folder: Path, endings: tuple[str, ...]) -> Input:
    digest = hashlib.sha256()
    for name, path in files_below(folder, endings):
        try:
            content = hashlib.sha256(read_regular(path)).hexdigest()
        except OSError as error:  # complained of when it is read
            content = str(error.strerror)
        digest.update(f"{name}\t{content}\n".encode(errors="surrogateescape"))
    return Input(kind, folder.resolve().as_posix(), digest.hexdigest())


def annotations_input(path: Path) -> Input:
    """What people corrected, as one input of an artefact: its digest covers the file's bytes, or names and bytes."""
    digest = hashlib.sha256()
    files = [("", path)] if path.is_file() else files_below(path, (".json", ".txt", ".png", ".yaml"))
    for name, file in files:
        with open_regular(file) as handle:
            content = hashlib.file_digest(handle, "sha256").hexdigest()
        if path.is_file():
            return Input("annotations", absolute(path).as_posix(), content)
        digest.update(f"{name}\t{content}\n".encode(errors="surrogateescape"))
    return Input("annotations", absolute(path).as_posix(), digest.hexdigest())
