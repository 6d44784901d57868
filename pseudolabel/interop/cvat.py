"""CVAT's "Segmentation mask 1.1": a zip of colour masks with ``labelmap.txt``, uploaded as annotations of a task.

``SegmentationClass/ID.png`` has the colour of the class, ``SegmentationObject/ID.png`` one of the object. Every pixel
is held. 255 is written as background, for CVAT refuses colours that no label has.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.palette import PALETTE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.interop.incoming import Correction, Parent
from pseudolabel.interop.outgoing import Export, Outgoing, read_regions
from pseudolabel.runtime.files import open_regular

_MOST_OBJECTS = 254  # of one image: an index of a palette PNG each, without 0 and 255
_CLASSES, _OBJECTS = "SegmentationClass/", "SegmentationObject/"
_LABELMAP = "labelmap.txt"
_WHEN = (1980, 1, 1, 0, 0, 0)  # zip's earliest: equal masks make equal files
_MOST_BYTES = 1 << 30  # of one PNG in a zip, unpacked


def check(classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse class names that cannot stand in ``labelmap.txt``.

    Raises:
        InputError: There is one.
    """
    for name in classes[1:]:
        if set(name) & set(":\r\n") or name.startswith("#") or name != name.strip():
            raise InputError(
                f"class {name!r} cannot be written: CVAT's labelmap.txt holds no colon, no line break, no # at the "
                "beginning; rename it in the data set, or use --as coco"
            )


def write(path: Path, export: Export) -> None:
    """Write the zip, image by image.

    Args:
        path: The file.
        export: The masks. Where an image has over 254 regions, its objects are its classes.
    """
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{','.join(map(str, PALETTE[label]))}::" for label, name in enumerate(export.classes)]
    crowded = 0
    with writing(path), replacing(path) as raw, zipfile.ZipFile(raw, "w") as archive:
        _add(archive, _LABELMAP, "\n".join([*lines, ""]).encode())
        _add(archive, "ImageSets/Segmentation/default.txt", "".join(f"{item.id}\n" for item in export.images).encode())
        for image, (labels, objects, many) in export.each(partial(colour_masks, instances=export.instances)):
            _add(archive, f"{_CLASSES}{image.id}.png", labels)
            _add(archive, f"{_OBJECTS}{image.id}.png", objects)
            crowded += many
    if crowded:
        export.progress.warn(
            f"{crowded} masks have over {_MOST_OBJECTS} regions, more than CVAT's object masks hold: their objects are "
            "the classes"
        )


def colour_masks(image: Outgoing, *, instances: bool) -> tuple[bytes, bytes, bool]:
    """The PNGs of one image's classes and objects, and whether it has too many regions; runs in a worker process."""
    found = read_regions(image, instances=instances)
    crowded = len(found) > _MOST_OBJECTS
    if crowded:
        found = read_regions(image, instances=False)
    labels, objects = np.zeros(image.size, dtype=np.uint8), np.zeros(image.size, dtype=np.uint8)
    for number, (label, inside) in enumerate(found, 1):
        labels[inside], objects[inside] = label, number
    return _png(labels), _png(objects), crowded


def read(path: Path, parent: Parent) -> Iterator[Correction]:
    """The masks of an export as "Segmentation mask 1.1".

    Args:
        path: The zip.
        parent: The masks that were corrected.

    Raises:
        DatasetError: The file is not what it should be, or of other images, sizes or classes.
    """
    try:
        with open_regular(path) as raw, zipfile.ZipFile(raw) as archive:
            colours = _read_labelmap(archive, path)
            names = [name for name in archive.namelist() if name.startswith(_CLASSES) and name.lower().endswith(".png")]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; wanted the zip that CVAT exported") from error
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path} is no zip file; wanted CVAT's export as Segmentation mask 1.1") from error
    labels = {colour: parent.label(name, path) for colour, name in colours.items() if _is_known(name, parent)}
    unknown = {colour: name for colour, name in colours.items() if colour not in labels}
    for name in names:
        image = parent.find(str(PurePosixPath(name.removeprefix(_CLASSES))), path)
        yield Correction(image, partial(_draw, path, name, image, labels, unknown, parent))


def _is_known(name: str, parent: Parent) -> bool:
    """Whether a label can be taken over; CVAT lists all labels of a project, used or not."""
    try:
        parent.label(name, parent.path)
    except DatasetError:
        return False
    return True


def _read_labelmap(archive: zipfile.ZipFile, path: Path) -> Mapping[int, str]:
    """Label by colour, as one number."""
    if _LABELMAP not in archive.namelist():
        raise DatasetError(f"{path} holds no {_LABELMAP}; export the task from CVAT as Segmentation mask 1.1")
    colours: dict[int, str] = {}
    for number, line in enumerate(archive.read(_LABELMAP).decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        parts = rest[0].split(",") if rest else []
        if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
            raise DatasetError(f"{path}: line {number} of {_LABELMAP} is {line!r:.60}; wanted LABEL:RED,GREEN,BLUE::")
        colour = _as_number(np.array([int(part) for part in parts]))
        if colours.setdefault(int(colour), name) != name:
            raise DatasetError(
                f"{path}: labels {colours[int(colour)]!r} and {name!r} have one colour in {_LABELMAP}; change one"
            )
    return colours


def _draw(
    path: Path, name: str, image: str, labels: Mapping[int, int], unknown: Mapping[int, str], parent: Parent
) -> np.ndarray:
    try:
        with open_regular(path) as raw, zipfile.ZipFile(raw) as archive:
            if archive.getinfo(name).file_size > _MOST_BYTES:
                raise DatasetError(f"{path}: {name} is larger than any mask; export the task from CVAT anew")
            with Image.open(io.BytesIO(archive.read(name)), formats=("PNG",)) as picture:
                parent.require_size(image, picture.size[::-1], path)
                found = _as_number(np.asarray(picture.convert("RGB")))
    except (OSError, zipfile.BadZipFile, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: {name} cannot be read as a PNG; export the task from CVAT anew") from error
    drawn = np.zeros(found.shape, dtype=np.uint8)
    for colour in np.unique(found).tolist():
        if colour in unknown:
            parent.label(unknown[colour], path)  # complains
        if colour not in labels:
            spelt = ",".join(str(colour >> shift & 255) for shift in (16, 8, 0))
            raise DatasetError(f"{path}: {name} has colour {spelt}, which no label of {_LABELMAP} has; export it anew")
        drawn[found == colour] = labels[colour]
    return drawn


def _as_number(colours: np.ndarray) -> np.ndarray:
    """RGB (..., 3) as one number each."""
    wide = colours.astype(np.int64)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _png(labels: np.ndarray) -> bytes:
    """A palette PNG."""
    picture, buffer = Image.fromarray(labels), io.BytesIO()
    picture.putpalette(PALETTE.tobytes())
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    about = zipfile.ZipInfo(name, _WHEN)
    about.compress_type = zipfile.ZIP_DEFLATED
    about.external_attr = 0o644 << 16
    archive.writestr(about, content)
