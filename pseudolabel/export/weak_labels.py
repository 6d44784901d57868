"""``data show``: weak labels drawn thick and in colour over their photographs.

A scribble PNG looks black in most viewers, for class indices are small numbers and unlabelled is 255. Here every stroke
has its class's colour from VOC's palette (background is black) within a white border, so that it shows on any ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pseudolabel.artefacts.atomic import new_folder
from pseudolabel.data.images import read_image
from pseudolabel.data.names import nfc
from pseudolabel.data.opening import load_dataset
from pseudolabel.data.palette import PALETTE, mask_path, write_png
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.data.weak.labels import WeakLabels, has_weak_labels, load_weak_labels
from pseudolabel.data.weak.scribbles import UNLABELLED
from pseudolabel.errors import InputError
from pseudolabel.export.pictures import sheet
from pseudolabel.options import DataShowOptions
from pseudolabel.options.fields import nearest
from pseudolabel.runtime.progress import Progress

_LONG_SIDE = 640  # pixels of a picture, at least: smaller photographs are enlarged
_CORE, _CASING = 2, 4  # pixels by which a stroke grows on each side: in its colour, and with its border
_DOT = 7  # radius of a point
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def show_labels(options: DataShowOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - no state
    """Draw the weak labels of some images.

    Args:
        options: The data set, its weak labels, and which images to draw.
        progress: Where to report.

    Returns:
        ``out``, ``images`` (how many pictures), ``oracle``.

    Raises:
        InputError: No weak labels are given, none of the images has any, or the folder holds something already.
        DatasetError: An id is not in the split, or a label or a photograph is at fault.
    """
    if options.scribbles is None and options.points is None and options.boxes is None:
        raise InputError("there is nothing to draw; pass --scribbles, --points or --boxes")
    dataset = load_dataset(options.model_dump())
    warn_of_photographs(dataset, progress)
    records = _chosen(dataset, options)
    with new_folder(options.out) as folder, progress.track(len(records), "images") as advance:
        for record in records:
            photograph = read_image(record.image, record.decoding)
            tall, wide, _ = photograph.shape
            weak = load_weak_labels(record, (tall, wide), dataset.classes)
            title = f"{record.id} (simulated)" if dataset.simulated else record.id
            write_png(mask_path(folder, record.id), labels_picture(photograph, weak, dataset.classes, title))
            advance(1)
    return {"out": str(options.out), "images": len(records), "oracle": list(dataset.oracle)}


def labels_picture(photograph: np.ndarray, weak: WeakLabels, classes: Sequence[str], title: str) -> Image.Image:
    """One photograph with its weak labels, and the names of the colours below.

    Args:
        photograph: uint8 (H, W, 3), RGB.
        weak: Its labels.
        classes: Names by class index.
        title: What stands above it.
    """
    factor = max(1.0, _LONG_SIDE / max(photograph.shape[:2]))
    size = round(photograph.shape[1] * factor), round(photograph.shape[0] * factor)
    labels = np.asarray(Image.fromarray(weak.labels).resize(size, Image.Resampling.NEAREST))
    painted = _paint_strokes(np.array(Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS)), labels)
    picture = Image.fromarray(painted)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    for box in weak.boxes:
        edges = (box.left * factor, box.top * factor, box.right * factor - 1, box.bottom * factor - 1)
        colour = _colour(box.label)
        draw.rectangle(edges, outline=_WHITE, width=6)
        inner = (edges[0] + 1, edges[1] + 1, edges[2] - 1, edges[3] - 1)
        if inner[0] <= inner[2] and inner[1] <= inner[3]:
            draw.rectangle(inner, outline=colour, width=4)
        else:  # too small for an outline of its own
            draw.rectangle(edges, fill=colour)
        if edges[2] - edges[0] > font.getlength(classes[box.label]) + 20 and edges[3] - edges[1] > 30:
            _write_name(draw, (edges[0] + 8, edges[1] + 7), classes[box.label], font, colour)
    for point in weak.points:
        x, y = (point.x + 0.5) * factor, (point.y + 0.5) * factor
        for radius, colour in ((_DOT + 3, _BLACK), (_DOT + 2, _WHITE), (_DOT, _colour(point.label))):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    present = sorted(
        {int(label) for label in np.unique(weak.labels)} - {UNLABELLED} | {box.label for box in weak.boxes}
    )
    return sheet([(title, picture)], 1, (max(size[0], 240), size[1]), [(label, classes[label]) for label in present])


def _chosen(dataset: Dataset, options: DataShowOptions) -> list[Record]:
    if options.ids is not None:
        return _named(dataset, list(dict.fromkeys(options.ids)))
    labelled = [record for record in dataset.records if has_weak_labels(record)]
    if not labelled:
        raise InputError(f"no image of split {dataset.split} of {dataset.root} has scribbles, points or boxes to draw")
    rng = np.random.default_rng(options.seed)
    picked = rng.choice(len(labelled), min(options.count, len(labelled)), replace=False)
    return [labelled[index] for index in sorted(picked.tolist())]


def _named(dataset: Dataset, names: list[str]) -> list[Record]:
    known = {record.id: record for record in dataset.records}
    for name in map(nfc, names):
        if name not in known:
            hint = nearest(name, list(known))
            raise InputError(f"--ids: split {dataset.split} of {dataset.root} has no image {name!r}{hint}")
    return [known[nfc(name)] for name in names]


def _paint_strokes(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lay strokes over a picture uint8 (H, W, 3), each class grown on all sides, all of them within a white border."""
    from scipy import ndimage

    if (labels == UNLABELLED).all():
        return picture
    distance, nearest = ndimage.distance_transform_edt(labels == UNLABELLED, return_indices=True)
    painted = picture.copy()
    painted[distance <= _CASING] = _WHITE
    core = distance <= _CORE
    painted[core] = PALETTE[labels[tuple(nearest)][core]]
    return painted


def _write_name(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    name: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, ...],
) -> None:
    left, top, right, bottom = draw.textbbox(place, name, font)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=_WHITE, outline=colour)
    draw.text(place, name, _BLACK, font)


def _colour(label: int) -> tuple[int, ...]:
    return tuple(PALETTE[label].tolist())
