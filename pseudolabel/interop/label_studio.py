"""Label Studio: brush masks as predictions with a score, and the annotations that people made of them.

The folder holds ``tasks.json`` for the project's import and ``label-config.xml`` for its labelling interface. The run
lengths are those of Label Studio's own converter, so that every mask comes back exactly. The score of a task is the
mean over its pixels of the largest probability, where the masks were made of soft labels: sorted by it, the Data
Manager shows the least certain images first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.instances import run_lengths
from pseudolabel.data.palette import PALETTE
from pseudolabel.errors import DatasetError
from pseudolabel.interop.extra import require
from pseudolabel.interop.incoming import Correction, Parent, as_runs, draw_shapes
from pseudolabel.interop.json_lists import read_objects
from pseudolabel.interop.outgoing import Export, Outgoing, read_regions

LOCAL = "/data/local-files/?d="
"""How Label Studio names a file of its local storage, before the path from its document root."""
_HALF = 128  # of 255: the editor's brush has a soft edge
_FAR = 1e4  # per cent


def check(classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse to begin without the package that writes the format.

    Raises:
        MissingExtraError: It is not installed.
    """
    require("label_studio_sdk.converter.brush", "label-studio-sdk", "--as label-studio")


def write(folder: Path, export: Export) -> None:
    """Write the tasks, one an image, and the labelling interface.

    Args:
        folder: To be made.
        export: The masks.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "label-config.xml") as file:
            file.write(label_config(export.classes).encode())
        with replacing(folder / "tasks.json") as file:
            comma = b"["
            for image, found in export.each(partial(brush_results, instances=export.instances, classes=export.classes)):
                file.write(comma + b"\n" + json.dumps(_task(image, found, export.root)).encode())
                comma = b","
            file.write(b"\n]\n" if comma == b"," else b"[]\n")


def label_config(classes: tuple[str, ...]) -> str:
    """The labelling interface: a brush for each class, in the colour of the palette PNGs."""
    colours = ("#{:02x}{:02x}{:02x}".format(*PALETTE[label].tolist()) for label in range(1, len(classes)))
    labels = "\n".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>"
        for name, colour in zip(classes[1:], colours, strict=True)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="label" toName="image">\n{labels}\n  </BrushLabels>\n</View>\n'
    )


def brush_results(image: Outgoing, *, instances: bool, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The regions of one mask as Label Studio's results; runs in a worker process."""
    brush = require("label_studio_sdk.converter.brush", "label-studio-sdk", "--as label-studio")
    return [
        {
            "id": f"{image.number}-{number}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": image.size[1],
            "original_height": image.size[0],
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": brush.mask2rle(inside.astype(np.uint8) * 255),
                "brushlabels": [classes[label]],
            },
        }
        for number, (label, inside) in enumerate(read_regions(image, instances=instances), 1)
    ]


def read(path: Path, parent: Parent) -> Iterator[Correction]:
    """The annotations of a JSON export. A task without an annotation that somebody submitted is left out.

    Of several annotations of a task the last one counts. Brushes and polygons are read.

    Args:
        path: The JSON file.
        parent: The masks that were corrected.

    Raises:
        DatasetError: The file is not what it should be, or of other images, sizes or classes.
        MissingExtraError: label-studio-sdk is not installed.
    """
    require("label_studio_sdk.converter.brush", "label-studio-sdk", "--from label-studio")
    for task in read_objects(path, "Label Studio's list of tasks (export as JSON, not as JSON-MIN)"):
        where = f"{path}: task {task.get('id', '?')}"
        given = task.get("annotations", [])
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            raise DatasetError(f"{where} has no list of annotations; export the project as JSON")
        done = [item for item in given if not item.get("was_cancelled")]
        if not done:
            continue
        data = task.get("data")
        address = data.get("image") if isinstance(data, Mapping) else None
        if not isinstance(address, str):
            raise DatasetError(f"{where} names no image in data.image; keep the field of the tasks that were imported")
        last = max(done, key=lambda item: str(item.get("updated_at", "")))
        own = data.get("id") if isinstance(data, Mapping) else None
        image = own if isinstance(own, str) and own in parent.sizes else _find(address, parent, path)
        results = last.get("result", [])
        if not isinstance(results, list):
            raise DatasetError(f"{where} has an annotation without a list of results; export the project as JSON")
        shapes = [_checked(item, image, parent, path, where) for item in results if _is_region(item)]
        yield Correction(image, partial(_draw, shapes, parent.sizes[image], where))


def _task(image: Outgoing, found: list[dict[str, Any]], root: Path) -> dict[str, Any]:
    place = Path(os.path.relpath(image.photograph, root)).as_posix()
    score = {} if image.confidence is None else {"score": round(image.confidence, 6)}
    prediction = {"model_version": "pseudolabel", **score, "result": found}
    return {"data": {"image": f"{LOCAL}{quote(place)}", "id": image.id}, "predictions": [prediction]}


def _find(address: str, parent: Parent, source: Path) -> str:
    """The image at an address; an uploaded file has eight hexadecimal digits and a dash before its name."""
    parts = urlsplit(address)
    place = parse_qs(parts.query).get("d", [""])[0] or unquote(parts.path)
    head, dash, rest = place.rpartition("/")[2].partition("-")
    uploaded = bool(dash) and len(head) == 8 and all(digit in "0123456789abcdef" for digit in head)
    if uploaded and "/upload/" in place:
        return parent.find(rest, source)
    return parent.find(place, source)


def _is_region(item: Any) -> bool:
    """Whether a result is of an image's region, and not a choice, a rating or a relation."""
    return isinstance(item, Mapping) and "original_width" in item


def _checked(
    item: Mapping[str, Any], image: str, parent: Parent, source: Path, where: str
) -> tuple[int, Mapping[str, Any]]:
    """Label and value of one region."""
    parent.require_size(image, (item.get("original_height"), item.get("original_width")), source)
    kind, value = item.get("type"), item.get("value")
    if kind not in ("brushlabels", "polygonlabels") or not isinstance(value, Mapping):
        raise DatasetError(f"{where} has a region of type {kind!r}; wanted brushlabels or polygonlabels: draw it anew")
    names = value.get(kind)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise DatasetError(f"{where} has a region with labels {names!r}; give each region one label")
    return parent.label(names[0], source), value


def _draw(shapes: list[tuple[int, Mapping[str, Any]]], size: tuple[int, int], where: str) -> np.ndarray:
    return draw_shapes(((label, _runs(value, size, where)) for label, value in shapes), size)


def _runs(value: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    if "points" in value:
        try:
            points = np.asarray(value["points"], dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            points = np.zeros((0, 2))
        if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > _FAR:
            raise DatasetError(f"{where} has a polygon that is no list of three or more points; draw it anew")
        return run_lengths(((points * (size[1] / 100, size[0] / 100)).tobytes(),), *size)
    brush = require("label_studio_sdk.converter.brush", "label-studio-sdk", "--from label-studio")
    try:
        drawn = brush.decode_rle(value["rle"]).reshape(*size, 4)[:, :, 3]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DatasetError(f"{where} has run lengths that do not fill its image; export the project anew") from error
    return as_runs(drawn >= _HALF)
