"""The frame that labels were drawn in: the size that their file states of its image, and whether they are in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudolabel.data.images import turns
from pseudolabel.data.xml_files import number_in


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width as a label file states them; None where it leaves one out, or has 0 as if it had none."""
    sides = (height, width)
    if any(isinstance(side, bool) or not isinstance(side, (int, float)) or not 1 <= side < 2**31 for side in sides):
        return None
    return int(height), int(width)


def size_in(annotation: Any, path: Path) -> tuple[int, int] | None:
    """Height and width in ``<size>`` of an XML annotation; None where it states none, or 0.

    Raises:
        DatasetError: One of them is no number.
    """
    size = annotation.find("size")
    if size is None or not all((size.findtext(name) or "").strip() for name in ("height", "width")):
        return None
    return stated_size(number_in(size, "height", str(path)), number_in(size, "width", str(path)))


def other_frame(where: str, stated: tuple[int, int], size: tuple[int, int], photograph: Path, mend: str) -> str:
    """The fault of labels that were drawn on an image of another size.

    Args:
        where: File, and entry if it has several, to begin with.
        stated: Height and width that they were drawn for.
        size: Height and width of the photograph, upright.
        photograph: Its path.
        mend: What to do about it, to end with.
    """
    turned = " after its EXIF orientation has turned it upright" if stated == size[::-1] and turns(photograph) else ""
    return f"{where} is for {stated[1]} x {stated[0]} pixels, its image has {size[1]} x {size[0]}{turned}; {mend}"


def are_shares(coordinates: Sequence[float]) -> bool:
    """Whether coordinates are shares of the image's sides, not pixels: all in [0, 1], and some with a fraction."""
    if not coordinates or min(coordinates) < 0 or max(coordinates) > 1:
        return False
    return any(value not in (0, 1) for value in coordinates)


def no_pixels(path: Path) -> str:
    """The fault of a file whose coordinates are such shares."""
    return (
        f"{path}: all coordinates lie between 0 and 1, as shares of the image's sides; "
        "wanted pixels: multiply x by the image's width and y by its height"
    )
